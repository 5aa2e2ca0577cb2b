"""What the figures of a study draw: curves of arms, their means over seeds, and how they are told apart."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, LogNorm, Normalize
from matplotlib.figure import SubFigure
from matplotlib.ticker import LogLocator, NullFormatter

from fisherkit.analysis.intervals import Interval, known_interval
from fisherkit.plots.style import label
from fisherkit.recording import ArmRecord, StudyRecord, Trajectory

INTERVAL = "mean over seeds, 95 % interval"
CONTROL_COLOUR = "0.15"
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_COLOURS = 6  # of the style's cycle that are not black
_LINES = ("-", "--", ":")
_SHADES = ListedColormap(matplotlib.colormaps["viridis"](np.linspace(0, 0.9, 256)))


@dataclass(frozen=True)
class Look:
    """Colour, marker and line of a group: different for up to 18 of them, in print without colour for up to 8."""

    colour: str
    marker: str
    line: str


@dataclass(frozen=True)
class Point:
    """An arm at its place on the axis, with the mean over its seeds."""

    arm: ArmRecord
    interval: Interval


@dataclass(frozen=True)
class Curve:
    """The arms of a group that have a place on the axis, ascending."""

    group: str
    points: tuple[Point, ...]
    look: Look


def look(index: int) -> Look:
    """That of the group with this number."""
    line = _LINES[index // _COLOURS % len(_LINES)]
    return Look(f"C{index % _COLOURS}", MARKERS[index % len(MARKERS)], line)


def groups(record: StudyRecord) -> list[str]:
    """The groups that are not only controls, in order; those with places on the axis first."""
    arms = sorted((arm for arm in record.arms if not arm.control), key=lambda arm: not np.isfinite(arm.value))
    return list(dict.fromkeys(arm.group for arm in arms))


def looks(record: StudyRecord) -> dict[str, Look]:
    """How each group is drawn, everywhere in a figure."""
    return {group: look(index) for index, group in enumerate(groups(record))}


def curves(record: StudyRecord, values: Callable[[ArmRecord], Sequence[float]]) -> list[Curve]:
    """A curve for each group of arms with a place on the axis; `values` are those of an arm's seeds."""
    found = []
    for group, shown in looks(record).items():
        placed = [arm for arm in record.arms if arm.group == group and not arm.control and np.isfinite(arm.value)]
        points = [Point(arm, known_interval(values(arm))) for arm in placed]
        ordered = sorted((point for point in points if point.interval.n), key=lambda point: point.arm.value)
        if ordered:
            found.append(Curve(group, tuple(ordered), shown))
    return found


def levels(record: StudyRecord, values: Callable[[ArmRecord], Sequence[float]]) -> list[Point]:
    """The arms that stand for the whole axis: controls, and those without a place on it."""
    whole = [arm for arm in record.arms if arm.control or not np.isfinite(arm.value)]
    points = [Point(arm, known_interval(values(arm))) for arm in whole]
    return [point for point in points if point.interval.n]


def seeds_text(record: StudyRecord, arms: Sequence[ArmRecord]) -> str:
    """How many seeds the means are over: "3 seeds", "2 to 3 seeds"."""
    counts = {len(arm.with_state("finished")) for arm in arms} - {0}
    if not counts:
        return "no finished run"
    low, high = min(counts), max(counts)
    return f"{low} to {high} seeds" if low < high else f"{high} seed{'s' * (high > 1)}"


def traced(arm: ArmRecord, variable: str) -> list[Trajectory]:
    """The arm's trajectories in which the variable was measured; exploded runs as far as they went."""
    runs = (run.trajectory for run in arm.with_state("finished", "exploded"))
    return [run for run in runs if run is not None and variable in run.variables and len(run)]


@dataclass(frozen=True, eq=False)
class Trace:
    """The total through time of an arm: geometric mean over seeds, the smallest and the largest."""

    epoch: Float64[np.ndarray, " row"]
    mean: Float64[np.ndarray, " row"]
    low: Float64[np.ndarray, " row"]
    high: Float64[np.ndarray, " row"]
    seeds: int


def trace(arm: ArmRecord, variable: str = "fisher_true") -> Trace | None:
    """The arm's trace at the epochs at which all of its longest-lived runs were measured; None without any."""
    return series_trace(traced(arm, variable), lambda run: run.total(variable))


def series_trace(
    runs: Sequence[Trajectory], values: Callable[[Trajectory], np.ndarray], *, logarithmic: bool = True
) -> Trace | None:
    """Mean (of logarithms or not) and range over runs of a quantity, where every run that is so long has it."""
    columns = [_positive(run.series["epoch"], values(run), logarithmic) for run in runs]
    columns = [column for column in columns if column]
    if not columns:
        return None
    ends = [max(column) for column in columns]
    epochs = sorted({epoch for column in columns for epoch in column})
    kept = [e for e in epochs if all(e in column for column, end in zip(columns, ends, strict=True) if e <= end)]
    rows = [[column[e] for column in columns if e in column] for e in kept]
    centre = [float(np.exp(np.mean(np.log(row)))) if logarithmic else float(np.mean(row)) for row in rows]
    low, high = [min(row) for row in rows], [max(row) for row in rows]
    return Trace(np.array(kept, float), np.array(centre), np.array(low), np.array(high), len(columns))


def _positive(epoch: np.ndarray, values: np.ndarray, logarithmic: bool) -> dict[float, float]:
    pairs = zip(epoch.tolist(), values.tolist(), strict=True)
    return {e: v for e, v in pairs if np.isfinite(v) and (v > 0 or not logarithmic)}


def mean_trajectory(arm: ArmRecord, variable: str = "fisher_true") -> Trajectory | None:
    """One trajectory for the arm: the mean over seeds of the logarithms of each layer's trace, and of the accuracies.

    It has the rows that all runs have, of finished runs unless all exploded; None if there is none.
    """
    every = traced(arm, variable)
    runs = [run for run in every if not run.attributes.get("exploded")] or every
    if not runs:
        return None
    measured = [np.isfinite(run.variable(variable)).all(axis=1) for run in runs]
    pairs = zip(runs, measured, strict=True)
    rows = [dict(zip(run.series["epoch"][there].tolist(), np.flatnonzero(there), strict=True)) for run, there in pairs]
    common = sorted(set.intersection(*(set(of_run) for of_run in rows)))
    if not common:
        return None
    chosen = [np.array([of_run[epoch] for epoch in common]) for of_run in rows]
    logs = [_log(run.variable(variable)[index]) for run, index in zip(runs, chosen, strict=True)]
    series: dict[str, np.ndarray] = {"epoch": np.array(common), "step": runs[0].series["step"][chosen[0]]}
    for name in ("train_accuracy", "test_accuracy"):
        if all(name in run.series for run in runs):
            series[name] = np.mean([r.series[name][i] for r, i in zip(runs, chosen, strict=True)], axis=0)
    return replace(runs[0], variables={variable: np.exp(np.mean(logs, axis=0))}, series=series)


def _log(values: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(values))  # a zero of one seed makes the mean zero, which is drawn as such


def spread(items: Sequence[Any], count: int) -> list[Any]:
    """At most `count` of the items, evenly from the first to the last."""
    if len(items) <= count:
        return list(items)
    places = np.linspace(0, len(items) - 1, count)
    return [items[round(place)] for place in places]


def axis_norm(record: StudyRecord) -> Normalize | None:
    """The scale of colours along the axis, logarithmic over more than a decade; None where no arm has a place on it."""
    values = [arm.value for arm in record.arms if np.isfinite(arm.value) and (arm.value or not arm.control)]
    if not values:
        return None
    low, high = min(values), max(values)
    if low == high:
        return Normalize(low - 0.5, high + 0.5)
    return LogNorm(low, high) if low > 0 and high > 10 * low else Normalize(low, high)


def along_axis(norm: Normalize, value: float) -> Any:
    """The colour of a place on the axis: dark to light, none too light for a line on white."""
    return _SHADES(float(norm(value)))


def colour_bar(figure: SubFigure, panels: Sequence[Axes], norm: Normalize, name: str) -> None:
    """The colours along the axis, beside the panels."""
    bar = figure.colorbar(ScalarMappable(norm, _SHADES), ax=list(panels), pad=0.01, aspect=18, fraction=0.05)
    bar.set_label(name, parse_math=False)


def log_axis(axes: Axes) -> None:
    """A logarithmic y axis with plain numbers, at 1, 2 and 5 where it spans less than two decades."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    if high < 100 * low:
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())


def shades(count: int) -> list[Any]:
    """So many colours in order, dark to light, that print as greys in the same order; none too light for a line."""
    return list(_SHADES(np.linspace(0, 1, count)))


def short(text: str, longest: int = 34) -> str:
    """A label of an arm or a group, for a legend."""
    return label(text, longest)
