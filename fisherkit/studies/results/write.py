"""The files of a study: study.h5, summary.csv, summary.txt and the figure, each put in place whole."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fisherkit.plots.study import drawable
from fisherkit.plots.study import study as draw
from fisherkit.plots.style import save
from fisherkit.recording import StudyRecord, study_to_bytes
from fisherkit.storage import atomic_write
from fisherkit.studies.arms import Study
from fisherkit.studies.results.arm_summary import ArmSummary, summarise
from fisherkit.studies.results.collect import collect
from fisherkit.studies.results.table import csv_bytes
from fisherkit.studies.results.text import text_bytes

FIGURE_SUFFIXES = (".png", ".pdf", ".svg")


@dataclass(frozen=True, eq=False)
class Results:
    """What was written: all files (without figures where no run has finished), and the text of summary.txt."""

    folder: Path
    record: StudyRecord
    arms: tuple[ArmSummary, ...]
    text: str
    files: tuple[Path, ...]


def write_results(
    study: Study,
    out: Path,
    name: str,
    *,
    failures: Mapping[str, str] | None = None,
    command: str = "",
    attributes: Mapping[str, Any] | None = None,
) -> Results:
    """Collect the runs under `<out>/runs` and write study.h5, summary.csv, summary.txt, figure.* into `<out>/<name>`.

    Runs that are missing, failed or unfinished are named in the files; the same runs give the same bytes.

    Args:
        failures: why runs failed, by identity.
        command: the command line, for the summary.
        attributes: further attributes of study.h5, JSON-able.

    Raises:
        OSError: a file could not be written; those written before are whole.
    """
    known = {**(attributes or {}), "name": name, **({"command": command} if command else {})}
    record = collect(study, out, failures=failures, attributes=known)
    arms = summarise(record)
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    text = text_bytes(record, arms)
    contents = {"study.h5": study_to_bytes(record), "summary.csv": csv_bytes(arms), "summary.txt": text}
    for file, data in contents.items():
        atomic_write(folder / file, data)
    files = [*(folder / file for file in contents), *_write_figures(record, folder)]
    return Results(folder, record, arms, text.decode("ascii"), tuple(files))


def _write_figures(record: StudyRecord, folder: Path) -> list[Path]:
    """The figure in each format; none where there is nothing to draw, which the summary says."""
    if not drawable(record):
        return []
    figure = draw(record)
    paths = [folder / f"figure{suffix}" for suffix in FIGURE_SUFFIXES]
    for path in paths:
        save(figure, path)
    return paths
