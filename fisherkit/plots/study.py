"""The figure of a study, by protocol: its result against its axis, and the Fisher trace behind it."""

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure, SubFigure

from fisherkit.plots.heatmap import Heatmaps, heatmaps
from fisherkit.plots.study_axis import add_legend, draw_against_axis, draw_arms, draw_losses
from fisherkit.plots.study_data import (
    CONTROL_COLOUR,
    INTERVAL,
    groups,
    looks,
    mean_trajectory,
    seeds_text,
    shades,
    short,
    spread,
)
from fisherkit.plots.study_scatter import draw_early, early_points
from fisherkit.plots.study_traces import (
    COLUMNS,
    HEIGHT_INCHES,
    MOST_PANELS,
    PANEL_INCHES,
    draw_clean_trace,
    draw_series,
    draw_traces,
    has_series,
    has_trace,
    rows_of,
    shown_groups,
    traced_arms,
)
from fisherkit.plots.style import label, label_epochs, new_figure, set_gaps, style
from fisherkit.recording import ArmRecord, StudyRecord, Trajectory

_RESULT_INCHES = (6.6, 2.7)  # of the panel with the result, its legend included
_MAP_INCHES, _MAP_LABELS, _MAPS = 2.5, 24, 3  # of a heatmap; maps beside the control's
_CAPTION_LETTERS = 16.5  # an inch, at 7 points
_LINE_INCHES = 0.13
_MOST_LAMBDAS = 4
_ALONG_AN_AXIS = ("removal", "window", "regularization", "warm-start")


@dataclass(frozen=True)
class Section:
    """A part of the figure: its size in inches and what draws it."""

    width: float
    height: float
    draw: Callable[[SubFigure], None]


Rows = list[list[Section]]  # sections beside each other, from the top


def study(record: StudyRecord) -> Figure:
    """The figure of the study's paper: results with their intervals over seeds, and traces through time.

    removal: final test accuracy against the end of the deficit, traces, heatmaps of the control and of three arms;
    window: loss against the onset above the trace of the clean run; regularization: final test accuracy against t;
    warm-start: final test accuracy against lambda, accuracies and gradient norms through time; early-fisher: early
    trace against final test accuracy; anything else: every arm in a line of its own.

    Raises:
        ValueError: No run has finished, so there is nothing to draw.
    """
    if not drawable(record):
        raise ValueError("study must have a finished run with a test accuracy to draw; got none.")
    rows = [row for row in _SECTIONS.get(record.protocol, _custom)(record) if row]
    with style():
        return _compose(rows, caption(record))


def drawable(record: StudyRecord) -> bool:
    """Whether there is something to draw: a finished run with a test accuracy."""
    return any(arm.finals("test_accuracy") for arm in record.arms)


def caption(record: StudyRecord) -> str:
    """What the marks, bands and lines of the figure are."""
    drawn = "lines with bands" if record.protocol in _ALONG_AN_AXIS else "marks with bars"
    parts = [
        f"{record.protocol}: {_data(record)}; {seeds_text(record, record.arms)}.",
        f"Accuracies: {drawn}, {INTERVAL} (none where one seed has finished, or all agree);"
        f" final: {record.attributes.get('final_rule', 'end of the run')}.",
    ]
    if has_trace(record):
        parts.append("Traces: geometric mean over seeds, band from the smallest to the largest seed.")
    if record.protocol == "early-fisher":
        parts.append("Correlation of the arms' means, 95 % bootstrap interval over arms.")
    members = [[arm for arm in record.arms if arm.group == group and not arm.control] for group in groups(record)]
    if any(len(traced_arms(arms)) < len(arms) for arms in members) and has_trace(record):
        parts.append("Of groups with many arms some are traced, evenly.")
    left_out = len(groups(record)) - MOST_PANELS
    if left_out > 0 and has_trace(record):
        parts.append(f"Traces of {left_out} more groups are in study.h5.")
    incomplete = [run.state for arm in record.arms for run in arm.runs.values() if run.state != "finished"]
    if incomplete:
        counts = ", ".join(f"{incomplete.count(state)} {state}" for state in dict.fromkeys(incomplete))
        parts.append(f"Not among the accuracies: {counts} of {sum(len(arm.runs) for arm in record.arms)} runs.")
    return " ".join(parts)


def _data(record: StudyRecord) -> str:
    """Model and images, where they are the same for all runs."""
    found = [
        {str(run.specification.get(name, "?")) for arm in record.arms for run in arm.runs.values()}
        for name in ("model", "data")
    ]
    model, data = (label(next(iter(texts)), 40) if len(texts) == 1 else "several" for texts in found)
    return f"{model} on {data}"


def _compose(rows: Rows, text: str) -> Figure:
    width = max(sum(section.width for section in row) for row in rows)
    lines = textwrap.wrap(text, int(width * _CAPTION_LETTERS))
    heights = [max(section.height for section in row) for row in rows] + [len(lines) * _LINE_INCHES + 0.06]
    figure = new_figure(width, sum(heights))
    set_gaps(figure, h_pad=0.035, w_pad=0.04, wspace=0.02)
    parts = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights, hspace=0)[:, 0]
    for part, row in zip(parts, rows, strict=False):
        widths = [section.width for section in row]
        places = part.subfigures(1, len(row), squeeze=False, width_ratios=widths, wspace=0)[0]
        for place, section in zip(places, row, strict=True):
            section.draw(place)
    parts[-1].text(0.008, 0.9, "\n".join(lines), fontsize=7, va="top", color="0.25", parse_math=False)
    return figure


def _accuracy(arm: ArmRecord) -> tuple[float, ...]:
    return arm.finals("test_accuracy")


def _result(record: StudyRecord) -> Section:
    def draw(part: SubFigure) -> None:
        draw_against_axis(part.subplots(), record, _accuracy, name="final test accuracy")

    return Section(*_RESULT_INCHES, draw)


def _traces(record: StudyRecord) -> list[Section]:
    shown = shown_groups(record)
    if not shown:
        return []
    rows = rows_of(len(shown))
    width = max(min(len(shown), COLUMNS) * PANEL_INCHES + 1.1, 5.0)
    return [Section(width, rows * (HEIGHT_INCHES + 0.2) + 0.4, lambda part: draw_traces(part, record))]


def _removal(record: StudyRecord) -> Rows:
    traces, maps = _traces(record), _maps(record)
    if len(shown_groups(record)) <= 2 and maps:
        return [[_result(record), *traces], maps]
    return [[_result(record)], traces, maps]


def _maps(record: StudyRecord) -> list[Section]:
    """Heatmaps of the control and of arms of the first group, evenly along the axis."""
    arms = [arm for arm in record.arms if arm.group in groups(record)[:1] and not arm.control]
    placed = sorted((arm for arm in arms if np.isfinite(arm.value)), key=lambda arm: arm.value)
    first = [record.control_of(placed[0])] if placed else list(record.controls[:1])
    found = [(arm, mean_trajectory(arm)) for arm in (*first, *placed) if arm is not None]
    drawn = [(arm, mean) for arm, mean in found if mean is not None]
    control = [pair for pair in drawn if pair[0] in first]
    chosen = [*control, *spread([pair for pair in drawn if pair[0] not in first], _MAPS)]
    if not chosen:
        return []
    maps = _heatmaps(chosen)
    return [Section(*maps.size, maps.draw)]


def _heatmaps(chosen: Sequence[tuple[ArmRecord, Trajectory]]) -> Heatmaps:
    return heatmaps(
        [mean for _, mean in chosen],
        titles=[arm.label for arm, _ in chosen],
        panel_inches=_MAP_INCHES,
        most_labels=_MAP_LABELS,
    )


def _window(record: StudyRecord) -> Rows:
    def draw(part: SubFigure) -> None:
        traced = has_trace(record)
        axes = part.subplots(1 + traced, 1, sharex=True, squeeze=False)[:, 0]
        draw_losses(axes[0], record, record.losses, name="loss of final test accuracy\n(control - arm, same seed)")
        axes[0].tick_params(labelbottom=True)
        if traced:
            draw_clean_trace(axes[1], record)
            label_epochs(axes[1])
            add_legend(axes[1])

    return [[Section(_RESULT_INCHES[0], 2.5 + 2.1 * has_trace(record), draw)]]


def _regularization(record: StudyRecord) -> Rows:
    return [[_result(record)], _traces(record)]


def _warm_start(record: StudyRecord) -> Rows:
    return [[_result(record)], [_accuracies(record)], _traces(record)]


def _chosen(record: StudyRecord) -> list[tuple[ArmRecord, Any, str]]:
    """The arms without a place on the axis, and a few of each group along it, with colour and name."""
    shown = looks(record)
    whole = [arm for arm in record.arms if arm.control or not np.isfinite(arm.value)]
    drawn = [(a, CONTROL_COLOUR if a.control else shown[a.group].colour, short(a.label)) for a in whole]
    placed = sorted((arm for arm in record.arms if arm not in whole), key=lambda arm: (arm.group, arm.value))
    few = spread(placed, _MOST_LAMBDAS)
    return [*drawn, *((arm, shade, short(arm.label)) for arm, shade in zip(few, shades(len(few)), strict=True))]


def _accuracies(record: StudyRecord) -> Section:
    """Test accuracy through time and, where recorded, the gradient norms on old and new images."""
    norms = has_series(record, "gradient_norm_old") or has_series(record, "gradient_norm_new")

    def draw(part: SubFigure) -> None:
        grid = part.subplots(1, 1 + norms, squeeze=False)[0]
        draw_series(grid[0], _chosen(record), _series("test_accuracy"))
        grid[0].set_ylabel("test accuracy")
        label_epochs(grid[0])
        if norms:
            draw_series(grid[1], _chosen(record), _series("gradient_norm_new"), logarithmic=True)
            unnamed = [(arm, colour, "") for arm, colour, _ in _chosen(record)]
            draw_series(grid[1], unnamed, _series("gradient_norm_old"), dashed=True, logarithmic=True)
            grid[1].set_ylabel("gradient norm (nats)")
            grid[1].set_title("new images solid, old images dotted")
            label_epochs(grid[1])
        add_legend(grid[-1])

    return Section(_RESULT_INCHES[0] + 2.4 * norms, 2.3, draw)


def _series(name: str) -> Callable[[Trajectory], np.ndarray]:
    return lambda run: run.series[name] if name in run.series else np.full(len(run), np.nan)


def _early_fisher(record: StudyRecord) -> Rows:
    if not early_points(record):
        return _custom(record)
    scatter = Section(6.6, 3.2, lambda part: draw_early(part, part.subplots(), record))
    return [[scatter], _traces(record)]


def _custom(record: StudyRecord) -> Rows:
    def draw(part: SubFigure) -> None:
        draw_arms(part.subplots(), record, _accuracy, _train, name="final accuracy")

    return [[Section(6.2, max(1.4, 0.17 * len(record.arms) + 0.6), draw)], _traces(record)]


def _train(arm: ArmRecord) -> tuple[float, ...]:
    return arm.finals("train_accuracy")


_SECTIONS: dict[str, Callable[[StudyRecord], Rows]] = {
    "removal": _removal,
    "window": _window,
    "regularization": _regularization,
    "warm-start": _warm_start,
    "early-fisher": _early_fisher,
}
