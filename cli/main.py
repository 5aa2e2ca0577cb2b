"""The `fisherkit` command: a lazy group, so that `fisherkit --help` does not import torch."""

import sys
from importlib import import_module

import click

# name -> (module:command, one line for --help); the module is imported when the command is called
COMMANDS = {
    "track": (".track:track", "Train under a deficit and record per-layer Fisher information every epoch."),
    "measure": (".measure:measure", "Measure checkpoints of any training; same file format as track."),
    "study": (".study:study", "Do an experiment of the papers: many runs, planned, shared, analysed, drawn."),
    "plot": (".plot:plot", "Draw the per-layer heatmap or the curves of one or several runs."),
    "analyze": (".analyze:analyze", "Say when each layer memorized and forgot, and what a study found."),
    "show": (".show:show", "Say what is in a run or study, whether it is whole, and how it goes on."),
    "verify": (".verify:verify", "Compare every layer of a model with brute force."),
    "doctor": (".doctor:doctor", "Say what is installed and whether it works; for bug reports."),
    "data": (".data:data", "List, fetch and check the image sets."),
}


class LazyGroup(click.Group):
    """A click group whose commands are imported only when they run."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: D102
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:  # noqa: D102
        if name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[name][0].partition(":")
        command = getattr(import_module(module, __package__), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: D102
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


EPILOG = (
    "Exit status: 0 done, 1 failed, 2 wrong usage, 64 bad name, 65 bad file, 75 folder in use, 130 or 143 stopped by a "
    "signal; the same command goes on."
)


@click.group(cls=LazyGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="fisherkit")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def fisherkit(debug: bool) -> None:
    """Measure the Fisher information of each layer through training; find critical learning periods."""


def main() -> None:
    """Run the command line; errors become one or two lines and an exit status."""
    from .failure import report

    debug = "--debug" in sys.argv
    try:
        status = fisherkit.main(prog_name="fisherkit", standalone_mode=False)
    except Exception as error:
        if debug:
            raise
        status = report(error)
    sys.exit(status if isinstance(status, int) else 0)
