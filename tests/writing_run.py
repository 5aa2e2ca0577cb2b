"""A run that does nothing but write: rows known beforehand, each published, and a checkpoint after every few."""

from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from fisherkit.recording import RunFile, Trajectory, from_bytes
from fisherkit.storage import lock
from fisherkit.studies.resume import contents
from fisherkit.training import newest_checkpoint, save_checkpoint

LAYERS = tuple(f"layer{number}.conv" for number in range(25))
QUANTITIES = (
    "fisher_true",
    "fisher_true_stderr",
    "fisher_empirical",
    "fisher_empirical_stderr",
    "weight_norm",
    "other",
)
PARAMETERS = np.arange(25) + 1
ROWS_A_CHECKPOINT = 7


def variables(step: int) -> dict[str, np.ndarray]:
    """What is measured at a step: of every quantity and layer another number, with a full mantissa."""
    layers = np.arange(len(LAYERS)) / 3
    return {name: step + number / 7 + layers for number, name in enumerate(QUANTITIES)}


def series(step: int) -> dict[str, float]:
    return {"epoch": step / 10, "step": step, "train_loss": 1 / (step + 1)}


def expected(rows: int) -> Trajectory:
    """The run after so many rows."""
    measured = [variables(step) for step in range(rows)]
    numbers = [series(step) for step in range(rows)]
    return Trajectory(
        LAYERS,
        PARAMETERS,
        {name: np.array([row[name] for row in measured]).reshape(rows, len(LAYERS)) for name in QUANTITIES},
        {name: np.array([row[name] for row in numbers]) for name in series(0)},
        {"seed": 1},
    )


def write(folder: Path, rows: int, told: Connection) -> None:
    """Go on with the run up to so many rows; tells of each row and checkpoint that is on disk."""
    with lock(folder):
        found = newest_checkpoint(folder)
        saved = None if found is None else from_bytes(found.contents["rows"].numpy().tobytes())
        run = RunFile(folder / "run.h5", layers=LAYERS, parameters=PARAMETERS, attributes={"seed": 1}, trajectory=saved)
        told.send(("began", len(run)))
        for step in range(len(run), rows):
            run.append(variables=variables(step), series=series(step))
            assert run.publish(force=True)
            told.send(("row", step))
            if step % ROWS_A_CHECKPOINT == ROWS_A_CHECKPOINT - 1:
                save_checkpoint(folder, step, contents({}, run.image(), numerics={}, elapsed_s=0.0))
                told.send(("checkpoint", step))
