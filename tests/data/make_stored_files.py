"""Writes run-schema-<n>.h5 and study-schema-<n>.h5 of the schema that this version writes, for later versions to read.

    python tests/data/make_stored_files.py     # once, when the schema gets a new number; files that are there stay

Their numbers are those of `numbers` below, so that tests/test_recording_stored.py can say what they must be read to.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from fisherkit.recording import ArmRecord, RunRecord, StudyRecord, Trajectory, layout, study_to_bytes, to_bytes

LAYERS, ROWS = ("conv1", "layer1.0.bn1", "größer → fc"), 5


def numbers(first: float, rows: int = ROWS) -> np.ndarray:
    """[rows, layers]: exact in binary, with a row that was not measured."""
    made = first + np.arange(rows)[:, None] / 8 - np.arange(len(LAYERS)) / 32
    made[1] = np.nan
    return made


def run(seed: int, *, rows: int = ROWS) -> Trajectory:
    """A run with every kind of array and attribute."""
    epoch = np.arange(rows, dtype=float)
    return Trajectory(
        layers=LAYERS,
        parameters=np.array([432, 32, 2**40]),
        variables={"fisher_true": numbers(1.0 + seed, rows), "fisher_true_stderr": numbers(0.5, rows)},
        series={
            "epoch": epoch,
            "step": np.arange(rows) * 79,
            "deficit_active": epoch < 2,
            "test_accuracy": epoch / 8,
            "lr": np.where(epoch < 3, 0.1, np.nan),
        },
        attributes={
            "configuration": {"model": "resnet18", "deficit": ["blur:0-2"], "lr": 0.1, "width": None, "seed": seed},
            "deficit_windows": [{"name": "blur", "text": "blur", "start": 0, "stop": 2}],
            "engines": dict.fromkeys(LAYERS, "ghost"),
            "estimator": "propagated",
            "finished": True,
            "seed": seed,
            "note": "größer → 0.1 + 0.2",
            "lr_found": 0.1 + 0.2,
            "fisherkit_version": "0.1.0",
        },
    )


def small(seed: int, *, rows: int = ROWS) -> Trajectory:
    """The run with fewer arrays."""
    made = run(seed, rows=rows)
    series = {name: array for name, array in made.series.items() if name != "lr"}
    return replace(made, series=series, variables={"fisher_true": made.variables["fisher_true"]})


def study() -> StudyRecord:
    """Two arms; a run that failed, and one that is shorter."""
    final = {"test_accuracy": 0.5}
    control = {seed: RunRecord(f"{seed:016x}", {"seed": seed}, "finished", "", small(seed), final) for seed in (0, 1)}
    other = {
        0: RunRecord("a" * 16, {"seed": 0}, "exploded", "the loss is infinite", small(0, rows=3)),
        1: RunRecord("b" * 16, {"seed": 1}, "failed", "out of memory"),
    }
    arms = (ArmRecord("control", "control", 0.0, True, control), ArmRecord("blur until 2", "blur", 2.0, False, other))
    attributes = {"command": "fisherkit study removal", "fisherkit_version": "0.1.0"}
    return StudyRecord("removal", "deficit removed at epoch", arms, {"seeds": 2, "arms": [0, None]}, attributes)


def main() -> None:
    """Write those that are not there."""
    folder = Path(__file__).parent
    for name, version, made in (
        ("run", layout.SCHEMA_VERSION, to_bytes(run(0))),
        ("study", layout.STUDY_SCHEMA_VERSION, study_to_bytes(study())),
    ):
        path = folder / f"{name}-schema-{version}.h5"
        if not path.exists():
            path.write_bytes(made)
            print(f"{path}: {len(made):,} bytes")


if __name__ == "__main__":
    main()
