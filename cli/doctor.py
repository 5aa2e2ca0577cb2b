"""`fisherkit doctor`: what is installed here, whether it works, and how to mend what does not."""

from pathlib import Path

import click

from .failure import printable


@click.command()
@click.option("--data-dir", type=click.Path(path_type=Path), help="Folder of the image files, as for track.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("runs"),
    show_default=True,
    help="Folder in which runs are to be written; nothing is left there.",
)
@click.pass_context
def doctor(context: click.Context, data_dir: Path | None, out: Path) -> None:
    """Say what is installed, on what machine, whether it works, and how to mend what does not.

    Plain lines for a bug report: neither your name nor any setting beside those that matter here. Exit status 1 when
    something is wrong.
    """
    from .checks import examine

    found = list(examine(data_dir, out))
    for finding in found:
        _say(finding.name, finding.text)
    problems = [(finding.name, problem) for finding in found for problem in finding.problems]
    for name, problem in problems:
        _say("WRONG", f"{name}: {problem}")
    _say("verdict", f"{len(problems)} wrong, see above" if problems else "all is well")
    if problems:
        context.exit(1)


def _say(name: str, text: str) -> None:
    click.echo(f"{name:<12} {printable(_without_home(text))}")


def _without_home(text: str) -> str:
    """`~` for the home folder, whose name is often that of the user."""
    home = str(Path.home())
    return text.replace(home, "~") if len(home) > 1 else text
