"""The first things one asks of a run: when the Fisher trace peaked, how much was forgotten, where it lies."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from fisherkit.recording import Trajectory


@dataclass(frozen=True)
class Peak:
    """The largest recorded total of a Fisher variable, in nats^2."""

    epoch: float
    value: float
    last_epoch: float
    last_value: float

    @property
    def forgotten(self) -> float:
        """1 - last / peak: 0 when the trace never fell."""
        return 1.0 - self.last_value / self.value if self.value > 0 else 0.0


def measured_rows(trajectory: Trajectory, variable: str = "fisher_true") -> np.ndarray:
    """Indices of the rows in which the variable was measured, int64 [rows]."""
    return np.flatnonzero(np.isfinite(trajectory.variable(variable)).all(axis=1))


def peak(trajectory: Trajectory, variable: str = "fisher_true") -> Peak | None:
    """Where the total over layers was largest after training began; None when nothing was measured.

    The row before training (epoch 0) does not count unless it is the only one: memorization is what training does.
    """
    rows = measured_rows(trajectory, variable)
    trained = rows[trajectory.series["epoch"][rows] > 0]
    rows = trained if len(trained) else rows
    if len(rows) == 0:
        return None
    total, epoch = trajectory.total(variable)[rows], trajectory.series["epoch"][rows]
    top = int(np.argmax(total))
    return Peak(float(epoch[top]), float(total[top]), float(epoch[-1]), float(total[-1]))


def shares(trajectory: Trajectory, variable: str = "fisher_true", *, row: int = -1) -> Float64[np.ndarray, " layer"]:
    """Each layer's share of the total in one measured row (by default the last)."""
    rows = measured_rows(trajectory, variable)
    if len(rows) == 0:
        return np.full(len(trajectory.layers), np.nan)
    values = trajectory.variable(variable)[rows[row]]
    return np.asarray(values / values.sum()) if values.sum() > 0 else np.full(len(values), np.nan)


def final_row(trajectory: Trajectory, name: str) -> float:
    """The last finite value of a series, NaN when there is none."""
    values = trajectory.series.get(name)
    finite = values[np.isfinite(values)] if values is not None else np.array([])
    return float(finite[-1]) if len(finite) else float("nan")
