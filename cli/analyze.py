"""`fisherkit analyze`: phases, concentration and confounds of runs; arms and the critical period of a study."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .failure import printable

if TYPE_CHECKING:
    from fisherkit.analysis import Arm
    from fisherkit.recording import StudyRecord, Trajectory

STUDY, RUN = "study.h5", "run.h5"


@click.command()
@click.argument("paths", metavar="RUNS|STUDY", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--control",
    "controls",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Run to compare with; one for each seed.",
)
@click.option(
    "--variable", default="fisher_true", show_default=True, help="fisher_true, fisher_empirical, weight_norm, ..."
)
@click.option("--arm", "labels", multiple=True, metavar="LABEL", help="Of a study: analyse this arm layer by layer.")
@click.option("--csv", "table", type=click.Path(dir_okay=False, path_type=Path), help="Write the table to this file.")
def analyze(
    paths: tuple[Path, ...], controls: tuple[Path, ...], variable: str, labels: tuple[str, ...], table: Path | None
) -> None:
    """Say when each layer of RUNS memorized and forgot, or what a STUDY found.

    Runs that differ only in their seed are taken together: means over seeds with 95 % intervals. A folder stands for
    its study.h5, its run.h5, or the runs in the folders in it.

    \b
    fisherkit analyze runs/a
    fisherkit analyze runs/blur-0 runs/blur-1 runs/blur-2 --control runs/clean-0 --control runs/clean-1
    fisherkit analyze studies/removal
    fisherkit analyze studies/removal --arm "blur until epoch 40"
    """
    from fisherkit.analysis.layers import analyse_layers, csv_rows
    from fisherkit.recording import holds_study

    from .analysis_study import say_study, study_csv
    from .analysis_text import layers_text

    files = [file for path in paths for file in files_of(path)]
    studies = [file for file in files if holds_study(file)]
    if studies and (len(files) > 1 or controls):
        raise ValueError(f"a study must be analysed alone, without --control; got {len(files)} files.")
    record = read_record(studies[0]) if studies else None
    if record is not None and not labels:
        say_study(record)
        _write(table, study_csv(record))
        return
    pairs = _arms_of(record, labels) if record is not None else _pairs(files, controls, labels)
    found = [analyse_layers(arm, control, variable) for arm, control in pairs]
    click.echo(printable("\n\n".join(layers_text(each) for each in found)))
    _write(table, csv_rows(found))


def files_of(path: Path) -> list[Path]:
    """The files that a user means: the file itself, or what lies in the folder.

    Raises:
        ValueError: there is none.
    """
    if path.is_file():
        return [path]
    found = [path / name for name in (STUDY, RUN) if (path / name).is_file()][:1] or sorted(path.glob(f"*/{RUN}"))
    if not found:
        raise ValueError(
            f"run must be a run file, a study file, or a folder that holds {RUN}, {STUDY} or folders with a {RUN}; "
            f"got {str(path)!r}."
        )
    return found


def read_record(file: Path) -> "StudyRecord":
    """The study in that file."""
    from fisherkit.recording import read_study

    return read_study(file)


def _arms_of(record: "StudyRecord", labels: tuple[str, ...]) -> "list[tuple[Arm, Arm | None]]":
    """Arms of a study by label, each with its control."""
    from fisherkit.studies.results import analysed_arm

    chosen = [record.arm(label) for label in labels]
    controls = [record.control_of(arm) for arm in chosen]
    return [(analysed_arm(a), analysed_arm(c) if c else None) for a, c in zip(chosen, controls, strict=True)]


def _pairs(files: list[Path], controls: tuple[Path, ...], labels: tuple[str, ...]) -> "list[tuple[Arm, Arm | None]]":
    """Runs by configuration, each with the control."""
    from fisherkit.recording import read

    if labels:
        raise ValueError(f"arm must be given with a study; got {labels[0]!r} with runs.")
    base = [(file, read(file)) for path in controls for file in files_of(path)]
    control = by_configuration(base, control=True)
    if len(control) > 1:
        raise ValueError("control must be runs that differ only in their seed; got several configurations.")
    arms = by_configuration([(file, read(file)) for file in files])
    return [(arm, control[0] if control else None) for arm in arms]


def by_configuration(runs: "list[tuple[Path, Trajectory]]", *, control: bool = False) -> "list[Arm]":
    """Runs that differ in nothing but their seed, together, in the order in which they were named.

    Raises:
        ValueError: two of them have the same seed too.
    """
    import json

    from fisherkit.analysis import Arm

    groups: dict[str, dict[int, tuple[Path, Trajectory]]] = {}
    for place, (file, run) in enumerate(runs):
        configuration = dict(run.attributes.get("configuration") or {})
        seed = configuration.pop("seed", place)
        seed = seed if isinstance(seed, int) else place
        key = json.dumps(configuration, sort_keys=True) if configuration else str(file)
        other = groups.setdefault(key, {}).setdefault(seed, (file, run))
        if other[0] != file:
            raise ValueError(f"run must differ in its seed from {str(other[0])!r}; got {str(file)!r}, also {seed}.")
    return [
        Arm(_label(members), "", float("nan"), control, tuple(members), tuple(run for _, run in members.values()))
        for members in groups.values()
    ]


def _label(members: "dict[int, tuple[Path, Trajectory]]") -> str:
    first = next(iter(members.values()))[0]
    more = f" and {len(members) - 1} more" if len(members) > 1 else ""
    return f"{first}{more}"


def _write(table: Path | None, text: str) -> None:
    if table is None:
        return
    from fisherkit.storage import atomic_write

    atomic_write(table, text.encode())
    click.echo(str(table))
