"""The result of a study against its axis: a curve a group, with intervals; controls as lines through all of it."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from fisherkit.analysis.intervals import Interval, known_interval
from fisherkit.plots.study_data import (
    CONTROL_COLOUR,
    Curve,
    Point,
    curves,
    levels,
    looks,
    short,
)
from fisherkit.recording import ArmRecord, StudyRecord

_BAND = 0.16  # opacity
_MOST_BANDS, _APART = 3, 0.008  # of the axis
_DASHES = ((0, ()), (0, (5, 2)), (0, (1, 1.2)), (0, (5, 1.2, 1, 1.2)))

Values = Callable[[ArmRecord], Sequence[float]]


def draw_against_axis(axes: Axes, record: StudyRecord, values: Values, *, name: str) -> None:
    """Means over seeds with their intervals; `values` are those of an arm's seeds, `name` is what they are."""
    _draw_curves(axes, curves(record, values))
    for index, point in enumerate(levels(record, values)):
        _draw_level(axes, record, point, index)
    axes.set_xlabel(record.axis, parse_math=False)
    axes.set_ylabel(name)
    add_legend(axes)


def draw_losses(axes: Axes, record: StudyRecord, losses: Values, *, name: str) -> None:
    """As `draw_against_axis`, of what each arm lost against its control: the line at zero is the control."""
    _draw_curves(axes, curves(record, losses))
    axes.axhline(0, color=CONTROL_COLOUR, linewidth=0.8, zorder=1)
    axes.set_xlabel(record.axis, parse_math=False)
    axes.set_ylabel(name)
    add_legend(axes)


def draw_arms(axes: Axes, record: StudyRecord, values: Values, beside: Values, *, name: str) -> None:
    """An arm a line, from the top: seeds as small dots, mean and interval; `beside` (train accuracy) as a tick."""
    shown = looks(record)
    for row, arm in enumerate(record.arms):
        colour = shown[arm.group].colour if arm.group in shown else CONTROL_COLOUR
        found, other = known_interval(values(arm)), known_interval(beside(arm))
        axes.plot(list(values(arm)), [row] * found.n, ".", color=colour, alpha=0.5, markersize=3.5, zorder=2)
        axes.plot(other.value, row, "|", color="0.45", markersize=8, zorder=1, label="train" if row == 0 else None)
        axes.plot(found.value, row, "o", color=colour, markersize=4.5, zorder=3, label="test" if row == 0 else None)
        if np.isfinite(found.low):
            axes.plot([found.low, found.high], [row, row], color=colour, linewidth=1.2, zorder=2)
        if not found.n:
            axes.text(0.01, row, "no finished run", transform=axes.get_yaxis_transform(), va="center", fontsize=6.5)
    axes.set_yticks(range(len(record.arms)), [short(arm.label) for arm in record.arms], parse_math=False)
    axes.set_ylim(len(record.arms) - 0.5, -0.5)
    axes.grid(axis="y", color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel(name)
    add_legend(axes)


def _draw_curves(axes: Axes, drawn: Sequence[Curve]) -> None:
    """With bands or, where many would hide each other, with bars a little beside each other."""
    many = len(drawn) > _MOST_BANDS
    values = [point.arm.value for curve in drawn for point in curve.points]
    step = _APART * (max(values) - min(values)) if many else 0.0
    for index, curve in enumerate(drawn):
        _draw_curve(axes, curve, shift=step * (index - (len(drawn) - 1) / 2), band=not many)


def _draw_curve(axes: Axes, curve: Curve, *, shift: float, band: bool) -> None:
    places = np.array([point.arm.value for point in curve.points]) + shift
    means = np.array([point.interval.value for point in curve.points])
    low, high = _bounds([point.interval for point in curve.points])
    look, known = curve.look, np.isfinite(low)
    form: dict[str, Any] = {"color": look.colour, "marker": look.marker, "linestyle": look.line}
    axes.plot(places, means, markersize=4, label=short(curve.group), **form)
    if band and known.sum() > 1:
        axes.fill_between(places, low, high, where=known.tolist(), color=look.colour, alpha=_BAND, linewidth=0)
    axes.vlines(places[known], low[known], high[known], color=look.colour, linewidth=0.8)


def _bounds(intervals: Sequence[Interval]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([each.low for each in intervals]), np.array([each.high for each in intervals])


def _draw_level(axes: Axes, record: StudyRecord, point: Point, index: int) -> None:
    shown = looks(record).get(point.arm.group)
    colour = CONTROL_COLOUR if shown is None or point.arm.control else shown.colour
    dashes = _DASHES[index % len(_DASHES)]
    axes.axhline(point.interval.value, color=colour, linestyle=dashes, linewidth=1, label=short(point.arm.label))
    if np.isfinite(point.interval.low):
        axes.axhspan(point.interval.low, point.interval.high, facecolor=colour, alpha=0.1, edgecolor="none", zorder=0)


def add_legend(axes: Axes) -> None:
    """The names of what is drawn, beside the panel."""
    handles, _ = axes.get_legend_handles_labels()
    if not handles:
        return
    legend = axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.02), borderaxespad=0, handlelength=2.2)
    for text in legend.get_texts():
        text.set_parse_math(False)
