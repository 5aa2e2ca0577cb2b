"""What `analyze` prints of a study: its summary as `study` wrote it, and which arms lose more than seeds do."""

from typing import TYPE_CHECKING

import click

from .analysis_text import table
from .failure import printable

if TYPE_CHECKING:
    from fisherkit.analysis import CriticalPeriod
    from fisherkit.recording import StudyRecord


def say_study(record: "StudyRecord") -> None:
    """The summary, then each group's losses against seed noise."""
    from fisherkit.studies.results import summarise, text_bytes
    from fisherkit.studies.results.findings import critical_periods

    click.echo(text_bytes(record, summarise(record)).decode().rstrip())
    for group, found in critical_periods(record).items():
        click.echo(f"\n{printable(group)}: losses against the noise of one run over seeds, all arms tested together")
        click.echo("\n".join(_losses(record, found)))


def study_csv(record: "StudyRecord") -> str:
    """The table of the arms, as in summary.csv."""
    from fisherkit.studies.results import csv_bytes, summarise

    return csv_bytes(summarise(record)).decode()


def _losses(record: "StudyRecord", found: "CriticalPeriod") -> list[str]:
    if not found.arms:
        return [found.verdict]
    head = (record.axis, "loss, points", "standard error", "seeds", "exceeds noise")
    rows = []
    for arm in found.arms:
        points = [f"{100 * part:.2f}" for part in (arm.loss, arm.stderr)]
        rows.append((f"{arm.value:g}", *points, str(arm.seeds), "yes" if arm.exceeds else "no"))
    left_out = [f"left out, without a run to compare: {printable(', '.join(found.left_out))}"] if found.left_out else []
    return [*table([head, *rows]), *left_out]
