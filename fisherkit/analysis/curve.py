"""One quantity through time: the rows in which it was measured after training began."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from fisherkit.recording import Trajectory

Values = Float64[np.ndarray, " row"]


@dataclass(frozen=True, eq=False)
class Curve:
    """A quantity above zero, its standard errors (0 where none are recorded) and the epochs they belong to."""

    epoch: Values
    value: Values
    stderr: Values
    infinite: bool = False  # somewhere, in a row that is left out

    def __len__(self) -> int:
        return len(self.epoch)

    @property
    def log(self) -> Values:
        """Natural logarithms; a zero counts as the smallest value above zero, so that it stays finite."""
        positive = self.value[self.value > 0]
        return np.asarray(np.log(np.maximum(self.value, positive.min() if len(positive) else 1.0)))

    @property
    def log_stderr(self) -> Values:
        """Standard errors of the logarithms, stderr / value; 1 for a zero."""
        positive = self.value > 0
        return np.asarray(np.where(positive, self.stderr / np.where(positive, self.value, 1.0), 1.0))


def curve(trajectory: Trajectory, name: str = "fisher_true", *, layer: str | None = None) -> Curve:
    """A variable of one layer, or of all layers together, or a series, in its measured rows.

    The row before training (epoch 0) does not count unless it is the only one: memorization is what training does.
    All layers together are the recorded total or the sum over layers; of `weight_norm` the norm of all parameters.
    A sum without a recorded error takes the sum of the layers' errors, which bounds it.

    Raises:
        ValueError: there is no such variable, series or layer; lists those there are.
    """
    value, stderr = _columns(trajectory, name, layer)
    epoch = trajectory.series["epoch"]
    rows = np.flatnonzero(np.isfinite(value))
    trained = rows[epoch[rows] > 0]
    rows = trained if len(trained) else rows
    error = np.where(np.isfinite(stderr[rows]), stderr[rows], 0.0)
    return Curve(epoch[rows], np.asarray(value[rows], np.float64), error, bool(np.isinf(value).any()))


def _columns(trajectory: Trajectory, name: str, layer: str | None) -> tuple[np.ndarray, np.ndarray]:
    none = np.zeros(len(trajectory))
    if name not in trajectory.variables and name in trajectory.series:
        if layer is not None:
            raise ValueError(f"layer must not be given for {name}, which is of the whole network; got {layer!r}.")
        return trajectory.series[name], none
    values = trajectory.variable(name)
    errors = trajectory.variables.get(f"{name}_stderr")
    if layer is not None:
        column = _column(trajectory, layer)
        return values[:, column], none if errors is None else errors[:, column]
    if name == "weight_norm":
        return np.sqrt(np.square(values).sum(axis=1)), none
    total_error = trajectory.series.get(f"{name}_total_stderr")
    if total_error is None:
        total_error = none if errors is None else errors.sum(axis=1)
    return trajectory.total(name), total_error


def _column(trajectory: Trajectory, layer: str) -> int:
    if layer not in trajectory.layers:
        few = trajectory.layers if len(trajectory.layers) <= 30 else (*trajectory.layers[:29], "...")
        raise ValueError(f"layer must be one of {', '.join(few)}; got {layer!r}.")
    return trajectory.layers.index(layer)
