"""Quantities through time, arm by arm: a panel for each group, with the control in each."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import SubFigure

from fisherkit.plots.selection import quantity
from fisherkit.plots.study_data import (
    CONTROL_COLOUR,
    Trace,
    along_axis,
    axis_norm,
    colour_bar,
    groups,
    log_axis,
    look,
    looks,
    series_trace,
    short,
    spread,
    trace,
    traced,
)
from fisherkit.plots.style import DECADES, label_epochs, title
from fisherkit.recording import ArmRecord, StudyRecord, Trajectory

PANEL_INCHES, HEIGHT_INCHES = 2.6, 1.9
COLUMNS = 4
MOST_PANELS = 8
_MOST_LINES, _MOST_NAMES = (
    12,
    6,
)  # of a panel: along the axis, and of arms that a name tells apart; of more, some evenly


def shown_groups(record: StudyRecord, variable: str = "fisher_true") -> list[str]:
    """The groups that get a panel: those with a trace, at most 8."""
    arms = {group: [arm for arm in record.arms if arm.group == group] for group in groups(record)}
    found = [group for group in arms if any(trace(arm, variable) for arm in arms[group])]
    return found[:MOST_PANELS]


def rows_of(panels: int) -> int:
    """Rows of panels."""
    return -(-panels // COLUMNS)


def draw_traces(figure: SubFigure, record: StudyRecord, variable: str = "fisher_true") -> None:
    """Total traces, logarithmic, on one scale: arms coloured by their place on the axis, the control black."""
    shown = shown_groups(record, variable)
    columns = min(len(shown), COLUMNS)
    grid = figure.subplots(rows_of(len(shown)), columns, sharex=True, sharey=True, squeeze=False)
    norm = axis_norm(record)
    highest = 0.0
    for index, axes in enumerate(grid.ravel()):
        if index >= len(shown):
            axes.remove()
            continue
        highest = max(highest, _draw_group(axes, record, shown[index], variable, norm))
        if index % columns == 0:
            name, unit = quantity(variable)
            axes.set_ylabel(f"{name}, all layers{unit}", parse_math=False)
        if index + columns >= len(shown):
            axes.tick_params(labelbottom=True)
            label_epochs(axes)
    first = grid[0, 0]
    first.set_yscale("log")
    low, high = first.get_ylim()
    first.set_ylim(max(low, highest * 10.0**-DECADES / 2), high)
    log_axis(first)
    if norm is not None:
        colour_bar(figure, [axes for axes in grid.ravel() if axes.figure is not None], norm, record.axis)


def traced_arms(arms: Sequence[ArmRecord]) -> list[ArmRecord]:
    """The arms of a group whose traces are drawn."""
    placed = all(np.isfinite(arm.value) for arm in arms)
    return spread(arms, _MOST_LINES if placed else _MOST_NAMES)


def _draw_group(axes: Axes, record: StudyRecord, group: str, variable: str, norm: Normalize | None) -> float:
    arms = [arm for arm in record.arms if arm.group == group and not arm.control]
    highest = 0.0
    for index, arm in enumerate(traced_arms(arms)):
        placed = norm is not None and np.isfinite(arm.value)
        own = look(index) if len(arms) > 1 else looks(record)[group]
        colour = along_axis(norm, arm.value) if norm is not None and placed else own.colour
        name = None if placed or len(arms) == 1 else short(arm.label, 24)
        highest = max(highest, _draw_trace(axes, trace(arm, variable), colour=colour, name=name))
    control = record.control_of(arms[0]) if arms else None
    if control is not None:
        drawn = trace(control, variable)
        name = short(control.label, 24)
        highest = max(highest, _draw_trace(axes, drawn, colour=CONTROL_COLOUR, name=name, line="--"))
    axes.set_title(title(group, 36), parse_math=False)
    legend = axes.legend(loc="best", fontsize=6.5, handlelength=1.6) if axes.get_legend_handles_labels()[0] else None
    for text in legend.get_texts() if legend else []:
        text.set_parse_math(False)
    return highest


def _draw_trace(axes: Axes, drawn: Trace | None, *, colour: Any, name: str | None, line: str = "-") -> float:
    if drawn is None:
        return 0.0
    marker = "o" if len(drawn.epoch) == 1 else ""
    axes.plot(drawn.epoch, drawn.mean, color=colour, linestyle=line, label=name, marker=marker, markersize=3)
    if drawn.seeds > 1:
        axes.fill_between(drawn.epoch, drawn.low, drawn.high, color=colour, alpha=0.12, linewidth=0)
    return float(drawn.high.max())


def draw_clean_trace(axes: Axes, record: StudyRecord, variable: str = "fisher_true") -> None:
    """The total trace of the controls through time, on logarithmic scale."""
    for index, arm in enumerate(record.controls):
        line = ("--", ":", "-.")[index % 3]
        _draw_trace(axes, trace(arm, variable), colour=CONTROL_COLOUR, name=short(arm.label), line=line)
    name, unit = quantity(variable)
    log_axis(axes)
    axes.set_ylabel(f"{name}, all layers{unit}", parse_math=False)


def draw_series(
    axes: Axes,
    arms: Sequence[tuple[ArmRecord, Any, str]],
    values: Callable[[Trajectory], np.ndarray],
    *,
    dashed: bool = False,
    logarithmic: bool = False,
) -> None:
    """A series of each arm through time, mean and range over its seeds; arms with their colour and name."""
    for arm, colour, name in arms:
        runs = [run.trajectory for run in arm.with_state("finished", "exploded") if run.trajectory is not None]
        drawn = series_trace(runs, values, logarithmic=logarithmic)
        _draw_trace(axes, drawn, colour=colour, name=name or None, line=":" if dashed else "-")
    if logarithmic:
        log_axis(axes)


def has_series(record: StudyRecord, name: str) -> bool:
    """Whether some run recorded that series."""
    runs = (run.trajectory for arm in record.arms for run in arm.with_state("finished", "exploded"))
    return any(run is not None and name in run.series for run in runs)


def has_trace(record: StudyRecord, variable: str = "fisher_true") -> bool:
    """Whether some run recorded that variable."""
    return any(traced(arm, variable) for arm in record.arms)
