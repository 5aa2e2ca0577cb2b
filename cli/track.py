"""`fisherkit track`: train under conditions and record per-layer Fisher information."""

import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import resolve_device
from .processes import refuse_several
from .run_options import for_specify, given_options, run_options

if TYPE_CHECKING:
    from fisherkit.studies import Outcome, RunSpecification

PARENT_PIPE = "FISHERKIT_PARENT_PIPE"  # 1: stop when standard input closes, which whoever started the run holds


@click.command(context_settings={"auto_envvar_prefix": "FISHERKIT_TRACK", "show_default": False})
@run_options()
@click.option(
    "--specification",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="JSON file with the whole run, such as the config.json of one, instead of the options above.",
)
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), help="Folder of the run.  [default: runs/NAME]"
)
@click.option(
    "--branch-from",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Begin at a checkpoint that this run's folder keeps, if the two are the same run so far; with --branch-epoch.",
)
@click.option("--branch-epoch", type=click.IntRange(min=1), help="The epoch after which that checkpoint was kept.")
@click.option(
    "--keep-checkpoint",
    "keep",
    type=click.IntRange(min=1),
    multiple=True,
    metavar="EPOCH",
    help="Keep a checkpoint after this epoch, for other runs to begin at; may be given several times.",
)
@click.option("--accept-different-numerics", is_flag=True, help="Resume with other threads, torch or processor.")
@click.pass_context
def track(
    context: click.Context,
    /,
    *,
    specification: Path | None,
    out: Path | None,
    branch_from: Path | None,
    branch_epoch: int | None,
    keep: tuple[int, ...],
    accept_different_numerics: bool,
    **options: Any,
) -> None:
    """Train under a deficit and record the Fisher information of every layer, every epoch.

    \b
    fisherkit track --model resnet18 --deficit blur:0-40
    fisherkit track --data cifar10 --data-dir DIR --width 16 --train-images 10000 --epochs 20 --deficit blur:0-8

    Ctrl-C ends cleanly; the same command goes on where it stopped. The result is OUT/run.h5; OUT/log.txt is what was
    printed, with the time.
    """
    refuse_several(
        "track",
        "Train in several processes with a loop of your own and FisherTracker, or measure this run's checkpoints with "
        "`torchrun -m fisherkit_cli measure`.",
    )
    from fisherkit.names import check_new_folder, folder_named
    from fisherkit.studies import track as run
    from fisherkit.training import keep_freed_memory

    from .progress import Progress

    keep_freed_memory()
    _watch_parent()
    chosen = _specification(context, specification, options)
    folder = folder_named(Path("runs"), chosen.name, "name") if out is None else check_new_folder(out, "--out")
    with Progress(chosen, folder, log=not _has_parent()) as progress:
        outcome = run(
            chosen,
            folder,
            observer=progress,
            branch=_branch(branch_from, branch_epoch),
            keep=keep,
            accept_different_numerics=accept_different_numerics,
            option_sources=_sources(context, options),
        )
        _say_how_it_ended(outcome, progress.say)
    if outcome.signal is not None:
        context.exit(128 + outcome.signal)


def _has_parent() -> bool:
    """Whether a study started this: it stops the run by closing its input, and keeps what it prints in log.txt."""
    return os.environ.get(PARENT_PIPE) == "1"


def _watch_parent() -> None:
    if _has_parent():
        from fisherkit.studies.signals import stop_with_parent

        stop_with_parent()


def _specification(context: click.Context, file: Path | None, options: dict[str, Any]) -> "RunSpecification":
    """The run that the file names, or the options."""
    from fisherkit.studies import specify
    from fisherkit.studies.folder import read_specification

    if file is not None:
        given = ", ".join(f"--{name.replace('_', '-')}" for name in given_options(context, options))
        if given:
            raise click.UsageError(f"--specification is the whole run: {given} must not be given beside it.")
        chosen = read_specification(file)
        resolve_device(chosen.device)
        return chosen
    if options["epochs"] is None and options["clean_epochs"] is None:
        options = {**options, "clean_epochs": 20}
    return specify(**for_specify(options))


def _sources(context: click.Context, options: dict[str, Any]) -> dict[str, str]:
    """Where the value of each option came from."""
    sources = {name: context.get_parameter_source(name) for name in options if name != "config"}
    return {name: source.name.lower() for name, source in sources.items() if source is not None}


def _branch(folder: Path | None, epoch: int | None) -> tuple[Path, int] | None:
    if (folder is None) != (epoch is None):
        raise click.UsageError("--branch-from and --branch-epoch must be given together.")
    return None if folder is None or epoch is None else (folder, epoch)


def _say_how_it_ended(outcome: "Outcome", say: Callable[[str], None]) -> None:
    if outcome.signal is not None:
        say(f"Stopped after step {outcome.step}; nothing is lost. The same command goes on from there:")
        say(f"  {shlex.join(['fisherkit', *sys.argv[1:]])}")
        return
    if outcome.already_finished:
        say(f"{outcome.folder} is finished: nothing to do.")
    from .summary import run_summary

    say(run_summary(outcome.trajectory))
    say(f"file     {outcome.file}")
    say(f"picture  fisherkit plot {shlex.quote(str(outcome.file))}")
