"""`fisherkit show`: what is in a run or a study, is it whole, and how does it go on."""

import json
from pathlib import Path

import click

from .failure import printable
from .files import RUNS
from .show_run import RunFolder
from .show_study import is_study, study_facts, study_lines


@click.command()
@RUNS
@click.option("--json", "as_json", is_flag=True, help="Print everything but the arrays as JSON.")
def show(runs: tuple[Path, ...], as_json: bool) -> None:
    """Say what is in RUNS, whether each is whole, and which command goes on with it.

    RUNS are run files, study files, and the folders of runs, of studies, and of several studies. Nothing is changed,
    and what is being written is not disturbed.
    """
    for path in runs:
        if as_json:
            click.echo(json.dumps(study_facts(path) if is_study(path) else RunFolder.at(path).facts()))
        else:
            lines = study_lines(path) if is_study(path) else RunFolder.at(path).lines()
            click.echo(printable("\n".join(lines)))
