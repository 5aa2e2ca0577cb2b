"""`fisherkit show`: what is in a run or a study, is it whole, and how does it go on."""

import json
from pathlib import Path
from typing import Any

import click

from .failure import discard_output, printable
from .files import RUNS
from .show_folder import folder_facts, folder_lines, is_run
from .show_run import RunFolder
from .show_study import is_study, study_facts, study_lines


@click.command()
@RUNS
@click.option("--json", "as_json", is_flag=True, help="Print everything but the arrays as JSON.")
def show(runs: tuple[Path, ...], as_json: bool) -> None:
    """Say what is in RUNS, whether each is whole, and which command goes on with it.

    RUNS are run files, study files, the folder of a run or a study, and folders that hold several of these. Nothing is
    changed, and what is being written is not disturbed.
    """
    try:
        for path in runs:
            click.echo(json.dumps(_facts(path)) if as_json else printable("\n".join(_lines(path))))
    except BrokenPipeError:  # `show | head`: the reader has had enough, and there is nothing else to do
        discard_output()


def _lines(path: Path) -> list[str]:
    if is_study(path):
        return study_lines(path)
    return RunFolder.at(path).lines() if is_run(path) else folder_lines(path)


def _facts(path: Path) -> dict[str, Any]:
    if is_study(path):
        return study_facts(path)
    return RunFolder.at(path).facts() if is_run(path) else folder_facts(path)
