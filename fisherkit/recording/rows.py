"""Rows that grow: what a run in progress has recorded so far."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fisherkit.recording import layout
from fisherkit.recording.trajectory import Trajectory

_FIRST_CAPACITY = 64


class Rows:
    """The rows of one run in growing arrays; a name that comes later is NaN (flags: 0) in the rows before."""

    def __init__(self, layers: Sequence[str], parameters: np.ndarray) -> None:
        self.layers = layout.check_labels(layers)
        self.parameters = parameters
        self._capacity = _FIRST_CAPACITY
        self._count = 0
        self._variables: dict[str, np.ndarray] = {}  # name -> [capacity, layers]
        self._series: dict[str, np.ndarray] = {name: self._empty(name, ()) for name in layout.REQUIRED_SERIES}

    def __len__(self) -> int:
        return self._count

    def append(self, variables: Mapping[str, np.ndarray], series: Mapping[str, float | int | np.generic]) -> None:
        """Add one row, all of it or nothing.

        Raises:
            ValueError: A missing `epoch` or `step`, a wrong shape, a step that does not increase, a Fisher value
                that is negative or not finite; names the layer and the step.
        """
        _check_row(variables, series)
        step = series["step"]
        scalars = {name: self._checked_scalar(name, value, step) for name, value in series.items()}
        row = {name: self._checked_variable(name, values, step) for name, values in variables.items()}
        self._check_order(scalars["epoch"], scalars["step"])
        self._reserve(self._count + 1)
        for name, values in row.items():
            self._variables.setdefault(name, self._empty(name, (len(self.layers),)))[self._count] = values
        for name, value in scalars.items():
            self._series.setdefault(name, self._empty(name, ()))[self._count] = value
        self._count += 1

    def _check_order(self, epoch: float, step: float) -> None:
        if not 0 <= epoch < np.inf:
            raise ValueError(f"epoch must be finite and not negative; got {epoch} at step {step}.")
        if not self._count:
            return
        before = {name: self._series[name][self._count - 1] for name in ("epoch", "step")}
        if step <= before["step"]:
            raise ValueError(f"step must be larger than {before['step']}, that of the row before; got {step}.")
        if epoch < before["epoch"]:
            raise ValueError(f"epoch must be at least {before['epoch']}, that of the row before; got {epoch}.")

    def extend(self, trajectory: Trajectory) -> None:
        """Start with the rows of a trajectory of the same layers.

        Raises:
            ValueError: Its layers are others.
        """
        if trajectory.layers != self.layers or not np.array_equal(trajectory.parameters, self.parameters):
            raise ValueError("trajectory must have the layers and parameter counts of the run it continues.")
        assert not self._count, "rows to continue from come first"
        self._count = len(trajectory)
        self._reserve(self._count)
        for mine, theirs in ((self._variables, trajectory.variables), (self._series, trajectory.series)):
            for name, array in theirs.items():
                mine[name] = self._empty(name, array.shape[1:])
                mine[name][: self._count] = array

    def trajectory(self, attributes: Mapping[str, Any], start: int = 0, stop: int | None = None) -> Trajectory:
        """The rows from `start` up to `stop` as a frozen value."""
        variables, series = self.views(start, stop)
        return Trajectory(self.layers, self.parameters, variables, series, attributes)

    def views(self, start: int = 0, stop: int | None = None) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Variables and series of the rows from `start` up to `stop`, not copied."""
        window = slice(start, self._count if stop is None else stop)
        return (
            {name: array[window] for name, array in self._variables.items()},
            {name: array[window] for name, array in self._series.items()},
        )

    def _checked_variable(self, name: str, values: np.ndarray, step: object) -> np.ndarray:
        self._check_name(name, "variable", self._series)
        array = np.asarray(values, dtype=np.float64)
        if array.shape != (len(self.layers),):
            raise ValueError(
                f"{name} must have one value for each of the {len(self.layers)} layers; "
                f"got the shape {array.shape} at step {step}."
            )
        bad = _impossible(name, array)
        if bad.any():
            layer = self.layers[int(np.argmax(bad))]
            raise ValueError(_refusal(name, array[bad][0], f"layer {layer}, step {step}"))
        return array

    def _checked_scalar(self, name: str, value: object, step: object) -> float | int:
        self._check_name(name, "series", self._variables)
        dtype, number = layout.series_dtype(name), np.asarray(value)
        real = number.shape == () and number.dtype.kind in "biuf"
        if dtype.kind == "f" and not real:
            raise ValueError(f"{name} must be one real number; got {value!r} at step {step}.")
        if dtype.kind != "f" and not (real and _fits(number, dtype)):
            raise ValueError(f"{name} must be a whole number that fits {dtype.name}; got {value!r}.")
        if _impossible(name, number.astype(np.float64)[None]).any():
            raise ValueError(_refusal(name, value, f"step {step}"))
        return number.astype(dtype).item()  # type: ignore[no-any-return]

    def _check_name(self, name: str, kind: str, others: Mapping[str, np.ndarray]) -> None:
        layout.check_name(name, kind)
        if name in others:
            raise ValueError(f"variables and series must have different names; got {name!r} in both.")

    def _empty(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        dtype = np.dtype("<f8") if shape else layout.series_dtype(name)
        return np.full((self._capacity, *shape), np.nan if dtype.kind == "f" else 0, dtype)

    def _reserve(self, count: int) -> None:
        """Double the arrays until they hold `count` rows."""
        while self._capacity < count:
            for arrays, shape in ((self._variables, (len(self.layers),)), (self._series, ())):
                for name, array in arrays.items():
                    arrays[name] = np.concatenate([array, self._empty(name, shape)])
            self._capacity *= 2


def _check_row(variables: Mapping[str, np.ndarray], series: Mapping[str, float | int | np.generic]) -> None:
    missing = [name for name in layout.REQUIRED_SERIES if name not in series]
    if missing:
        raise ValueError(f"series must hold epoch and step; {missing[0]} is missing.")
    both = sorted(variables.keys() & series.keys())
    if both:
        raise ValueError(f"variables and series must have different names; got {both[0]!r} in both.")


def _impossible(name: str, values: np.ndarray) -> np.ndarray:
    """Where a Fisher value is negative or not finite; what one image has not, an error, say, may be NaN."""
    if not name.startswith("fisher_"):
        return np.zeros(values.shape, bool)
    optional = "stderr" in name or name.endswith("_corrected")
    allowed = np.isnan(values) if optional else np.zeros(values.shape, bool)
    return np.asarray(~(allowed | (np.isfinite(values) & (values >= 0))))


def _fits(number: np.ndarray, dtype: np.dtype[Any]) -> bool:
    if not np.isfinite(number) or number != np.trunc(number):
        return False
    limits = np.iinfo(dtype)
    return limits.min <= int(number) <= limits.max


def _refusal(name: str, value: object, place: str) -> str:
    return (
        f"{name} must be finite and not negative; got {value} in {place}. "
        "The weights or activations have probably overflowed: see the training loss, lower the learning rate."
    )
