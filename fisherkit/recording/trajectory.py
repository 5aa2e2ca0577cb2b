"""What a run recorded: one frozen, labelled value."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64

from fisherkit.recording import layout

if TYPE_CHECKING:
    import xarray


@dataclass(frozen=True, eq=False, repr=False)
class Trajectory:
    """The rows of a run: per layer and over time, with labels and with what produced them.

    `variables` are float64 [time, layer]: `fisher_true`, `fisher_true_stderr`, `fisher_empirical`,
    `weight_norm`, ... (traces in nats^2: sum over parameters, mean over images). `series` are [time]: `epoch`
    (passes completed) and `step` (int64, increasing) always, flags `..._active` uint8, all others float64.
    NaN stands for what was not measured in a row. `attributes` are JSON-able; `schema_version` and
    `fisherkit_version` are added where they are missing. The arrays are copies and cannot be written to.

    Raises:
        ValueError: A wrong shape, type or name, naming it.
    """

    layers: tuple[str, ...]
    parameters: np.ndarray  # int64 [layer]
    variables: Mapping[str, np.ndarray]  # each float64 [time, layer]
    series: Mapping[str, np.ndarray]  # each [time]
    attributes: Mapping[str, Any]

    def __post_init__(self) -> None:
        layers = layout.check_labels(self.layers)
        self._check_names()
        rows, count = len(self.series["step"]), len(layers)
        series = {n: _frozen(n, a, layout.series_dtype(n), (rows,)) for n, a in self.series.items()}
        variables = {n: _frozen(n, a, np.dtype("<f8"), (rows, count)) for n, a in self.variables.items()}
        if rows > 1 and not (np.diff(series["step"]) > 0).all():
            raise ValueError(f"step must increase from row to row; got {series['step'].tolist()}.")
        if not np.isfinite(series["epoch"]).all() or (np.diff(series["epoch"]) < 0).any():
            raise ValueError(f"epoch must be finite and not decrease; got {series['epoch'].tolist()}.")
        self._set(layers=layers, variables=variables, series=series)
        self._set(parameters=_frozen("parameters", self.parameters, np.dtype("<i8"), (count,)))
        self._set(attributes=layout.normalise_attributes(layout.versions() | dict(self.attributes)))
        layout.check_attributes(self.attributes)

    def _check_names(self) -> None:
        for kind, names in (("variable", self.variables), ("series", self.series)):
            for name in names:
                layout.check_name(name, kind)
        missing = [name for name in layout.REQUIRED_SERIES if name not in self.series]
        if missing:
            raise ValueError(f"series must hold {' and '.join(layout.REQUIRED_SERIES)}; {missing[0]} is missing.")
        both = sorted(self.variables.keys() & self.series.keys())
        if both:
            raise ValueError(f"variables and series must have different names; got {both[0]!r} in both.")

    def _set(self, **fields: object) -> None:
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.series["step"])

    def __repr__(self) -> str:
        names = ", ".join(sorted(self.variables))
        return f"Trajectory({len(self)} rows, {len(self.layers)} layers; {names})"

    def rows(self, start: int, stop: int) -> "Trajectory":
        """The rows from `start` up to, not including, `stop`."""
        return dataclasses.replace(
            self,
            variables={name: array[start:stop] for name, array in self.variables.items()},
            series={name: array[start:stop] for name, array in self.series.items()},
        )

    def up_to_step(self, step: int) -> "Trajectory":
        """The rows recorded at optimiser step `step` or before."""
        return self.rows(0, int(np.searchsorted(self.series["step"], step, side="right")))

    def total(self, variable: str = "fisher_true") -> Float64[np.ndarray, " time"]:
        """The sum over layers: the recorded `<variable>_total` if there is one, else the sum of the rows."""
        if f"{variable}_total" in self.series:
            return self.series[f"{variable}_total"]
        return np.asarray(self.variable(variable).sum(axis=1))

    def variable(self, name: str) -> Float64[np.ndarray, "time layer"]:
        """The variable of that name; a ValueError lists those that were recorded."""
        if name not in self.variables:
            raise ValueError(f"variable must be one of {', '.join(sorted(self.variables))}; got {name!r}.")
        return self.variables[name]

    def equals(self, other: "Trajectory", ignore: Collection[str] = ("elapsed_s",)) -> bool:
        """Whether `differences` finds none."""
        return not self.differences(other, ignore)

    def differences(self, other: "Trajectory", ignore: Collection[str] = ("elapsed_s",)) -> list[str]:
        """What differs, one sentence each; numbers are compared bit by bit, NaN equals NaN.

        `ignore` names variables, series and attributes to leave out. Where one has more rows, the rows that
        both have are compared.
        """
        if self.layers != other.layers:
            pairs = zip((*self.layers, None), (*other.layers, None), strict=False)
            ours, theirs = next((a, b) for a, b in pairs if a != b)
            return [f"layers: {len(self.layers)} and {len(other.layers)}; first difference {ours!r} and {theirs!r}"]
        found = []
        if len(self) != len(other):
            found.append(f"rows: {len(self)} and {len(other)}")
        common = min(len(self), len(other))
        mine, yours = self._arrays(common), other._arrays(common)
        for name in sorted((mine.keys() | yours.keys()) - set(ignore)):
            if name in mine and name in yours:
                found += self._array_difference(name, mine[name], yours[name])
            else:
                found.append(f"{name}: only in the {'first' if name in mine else 'second'}")
        return found + _attribute_differences(self.attributes, other.attributes, ignore)

    def _arrays(self, rows: int) -> dict[str, np.ndarray]:
        over_time = {name: array[:rows] for name, array in {**self.variables, **self.series}.items()}
        return {"parameters": self.parameters, **over_time}

    def _array_difference(self, name: str, mine: np.ndarray, yours: np.ndarray) -> list[str]:
        differ = ~_bit_equal(mine, yours)
        if not differ.any():
            return []
        place = tuple(int(index) for index in np.argwhere(differ)[0])
        if name == "parameters":
            where = f"layer {self.layers[place[0]]}"
        else:
            where = f"step {self.series['step'][place[0]]}"
            where += f", layer {self.layers[place[1]]}" if len(place) > 1 else ""
        values = f"{mine[place].item()!r} and {yours[place].item()!r}"
        return [f"{name}: {values} at {where}; {int(differ.sum())} of {differ.size} values differ"]

    def to_xarray(self) -> "xarray.Dataset":
        """The same as an `xarray.Dataset`, as `xarray.open_dataset(path, engine="h5netcdf")` would give it.

        Raises:
            ModuleNotFoundError: xarray is not installed; the message has the command.
        """
        try:
            import xarray
        except ModuleNotFoundError:
            raise ModuleNotFoundError("to_xarray needs xarray: pip install 'fisherkit[xarray]'") from None
        arrays: dict[str, tuple[tuple[str, ...], np.ndarray]] = {"parameters": (("layer",), self.parameters)}
        arrays |= {name: (("time", "layer"), array) for name, array in self.variables.items()}
        arrays |= {name: (("time",), array) for name, array in self.series.items()}
        labelled = {n: (axes, array, layout.describe(n)) for n, (axes, array) in arrays.items()}
        coordinates = {name: labelled.pop(name) for name in layout.COORDINATES if name in labelled}
        names = ("layer", np.asarray(self.layers, dtype=object), layout.describe("layer"))
        attributes = layout.encode_attributes(self.attributes)
        return xarray.Dataset(labelled, coords={**coordinates, "layer": names}, attrs=attributes)


def _frozen(name: str, values: Any, dtype: np.dtype[Any], shape: Sequence[int]) -> np.ndarray:
    """A copy of that type and shape that cannot be written to."""
    given = np.asarray(values)
    if given.shape != tuple(shape):
        raise ValueError(f"{name} must have the shape {tuple(shape)}; got {given.shape}.")
    if given.dtype.kind not in "biuf":
        raise ValueError(f"{name} must hold real numbers; got {given.dtype}.")
    array = np.array(given, dtype=dtype, order="C")
    if dtype.kind in "iu" and not np.array_equal(array, given):
        raise ValueError(f"{name} must hold whole numbers that fit {dtype.name}; got {given.dtype}.")
    array.flags.writeable = False
    return array


def _bit_equal(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if a.dtype.kind != "f":
        return np.asarray(a == b)
    same_bits = np.ascontiguousarray(a).view(np.int64) == np.ascontiguousarray(b).view(np.int64)
    return np.asarray(same_bits | (np.isnan(a) & np.isnan(b)))


def _attribute_differences(a: Mapping[str, Any], b: Mapping[str, Any], ignore: Collection[str]) -> list[str]:
    """Differing attributes; nested ones with their path (`configuration.seed`)."""
    found = []
    for name in sorted((a.keys() | b.keys()) - set(ignore)):
        if name not in a or name not in b:
            found.append(f"{name}: only in the {'first' if name in a else 'second'}")
        elif isinstance(a[name], dict) and isinstance(b[name], dict):
            found += [f"{name}.{line}" for line in _attribute_differences(a[name], b[name], ignore)]
        elif a[name] != b[name]:
            found.append(f"{name}: {_short(a[name])} and {_short(b[name])}")
    return found


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
