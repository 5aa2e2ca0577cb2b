"""The trace at the start of training against the accuracy at its end, an arm a point."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure
from matplotlib.lines import Line2D

from fisherkit.analysis.correlation import rank_correlation
from fisherkit.analysis.intervals import Interval, known_interval
from fisherkit.plots.selection import quantity
from fisherkit.plots.study_data import (
    CONTROL_COLOUR,
    MARKERS,
    along_axis,
    axis_norm,
    colour_bar,
    short,
)
from fisherkit.recording import ArmRecord, StudyRecord, Trajectory

EARLY_EPOCHS = 2.0  # of the protocol's 200; the trace of Jastrzebski 2021 peaks in the first epochs
_WHOLE = 200.0


@dataclass(frozen=True, eq=False)
class EarlyPoint:
    """An arm: its early trace (geometric mean over seeds) and its final test accuracy."""

    arm: ArmRecord
    early: float
    accuracy: Interval


def early_until(record: StudyRecord) -> float:
    """The end of the start of training, in epochs as they are run: 1 % of the protocol's, at least 1."""
    return max(1.0, EARLY_EPOCHS * float(record.options.get("time_scale", 1.0)))


def early_trace(run: Trajectory, until: float, variable: str = "fisher_true") -> float:
    """The largest total over layers in the epochs above 0 and up to `until`, in nats^2; NaN if none was measured."""
    epoch, total = run.series["epoch"], run.total(variable)
    early = (epoch > 0) & (epoch <= until) & np.isfinite(total)
    return float(total[early].max()) if early.any() else float("nan")


def early_points(record: StudyRecord, variable: str = "fisher_true") -> list[EarlyPoint]:
    """The arms of which both are known."""
    until, found = early_until(record), []
    for arm in record.arms:
        runs = [run.trajectory for run in arm.with_state("finished")]
        traces = [early_trace(run, until, variable) for run in runs if run is not None and variable in run.variables]
        known = [value for value in traces if value > 0]
        accuracy = known_interval(arm.finals("test_accuracy"))
        if known and accuracy.n:
            found.append(EarlyPoint(arm, float(np.exp(np.mean(np.log(known)))), accuracy))
    return found


def early_correlation(record: StudyRecord) -> Interval:
    """Spearman's correlation over arms between early trace and final test accuracy."""
    points = early_points(record)
    return rank_correlation([point.early for point in points], [point.accuracy.value for point in points])


def draw_early(figure: SubFigure, axes: Axes, record: StudyRecord) -> None:
    """Marker by group (penalty, batch size), colour by the value on the axis (learning rate)."""
    points, norm = early_points(record), axis_norm(record)
    names = list(dict.fromkeys(point.arm.group for point in points))
    for point in points:
        placed = norm is not None and np.isfinite(point.arm.value)
        colour = along_axis(norm, point.arm.value) if norm is not None and placed else CONTROL_COLOUR
        marker = MARKERS[names.index(point.arm.group) % len(MARKERS)]
        bounds = [point.accuracy.low, point.accuracy.high]
        axes.plot([point.early] * 2, bounds, color="0.6", linewidth=0.8, zorder=1)
        axes.plot(point.early, point.accuracy.value, marker, color=colour, markersize=5.5, mec="0.2", mew=0.5, zorder=2)
    axes.set_xscale("log")
    name, unit = quantity("fisher_true")
    until = early_until(record)
    span = "the first epoch" if until == 1 else f"the first {until:g} epochs"
    axes.set_xlabel(f"largest {name} of all layers in {span}{unit}")
    axes.set_ylabel("final test accuracy")
    axes.set_title(correlation_text(early_correlation(record)))
    if norm is not None:
        colour_bar(figure, [axes], norm, record.axis)
    _add_legend(figure, names)


def _add_legend(figure: SubFigure, names: Sequence[str]) -> None:
    marks = [
        Line2D([], [], marker=MARKERS[k % len(MARKERS)], linestyle="", color="0.8", mec="0.2", mew=0.5)
        for k in range(len(names))
    ]
    legend = figure.legend(marks, [short(name) for name in names], loc="outside right upper")
    for text in legend.get_texts():
        text.set_parse_math(False)


def correlation_text(found: Interval) -> str:
    """`Spearman correlation -0.83 [-0.97, -0.40] over 10 arms`."""
    if not np.isfinite(found.value):
        return f"no correlation over {found.n} arm{'s' * (found.n != 1)}"
    bounds = f" [{found.low:.2f}, {found.high:.2f}]" if np.isfinite(found.low) else " (too few arms for an interval)"
    return f"Spearman correlation {found.value:.2f}{bounds} over {found.n} arms"
