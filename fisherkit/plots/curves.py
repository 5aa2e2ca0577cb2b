"""The trace over the epochs as lines: the total and chosen layers, with their error bands."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib
import numpy as np
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fisherkit.plots import windows
from fisherkit.plots.selection import matching_layers, quantity, run_titles, several
from fisherkit.plots.style import DECADES, label, label_epochs, new_figure, set_gaps, style, title
from fisherkit.recording import Trajectory

TOTAL = "all layers"
_MOST_COLUMNS, _MOST_NAMES = 3, 30
_WIDE_INCHES, _NARROW_INCHES, _HEIGHT_INCHES = 4.2, 2.6, 2.3
_COLOURS = 7  # in the style's cycle
_ERRORS = 2  # half-width of the band in standard errors


@dataclass(frozen=True, eq=False)
class _Line:
    run: int
    quantity: str  # TOTAL or a layer
    epoch: Float64[np.ndarray, " time"]
    values: Float64[np.ndarray, " time"]
    errors: Float64[np.ndarray, " time"] | None


def curves(
    trajectories: Trajectory | Sequence[Trajectory],
    *,
    layers: Sequence[str] = (),
    variable: str = "fisher_true",
    titles: Sequence[str] | None = None,
) -> Figure:
    """The sum over all layers, and the layers named, over the epochs, with +-2 standard errors as a band.

    Of one trajectory all lines share a panel. Several trajectories differ in colour, and each layer has a panel of
    its own. `layers` are names or patterns (`layer1.*`). Deficits are shaded and named above.

    Raises:
        ValueError: An unknown variable, a pattern without a layer, no rows, nothing positive to draw.
    """
    runs = several(trajectories)
    lines = [line for index, run in enumerate(runs) for line in _lines(run, index, variable, layers)]
    if not any((line.values > 0).any() for line in lines):
        raise ValueError("variable must have a value above zero somewhere; got none, so there is nothing to draw.")
    spans = [windows.spans(run) for run in runs]
    with style():
        name, unit = quantity(variable)
        return _draw(lines, spans, run_titles(runs, titles), name + unit)


def _lines(run: Trajectory, index: int, variable: str, patterns: Sequence[str]) -> list[_Line]:
    values, errors = run.variable(variable), run.variables.get(f"{variable}_stderr")
    if not len(run):
        raise ValueError("trajectory must have at least one row; got none. The run has not recorded anything yet.")
    epoch = run.series["epoch"]
    lines = [_Line(index, TOTAL, epoch, run.total(variable), run.series.get(f"{variable}_total_stderr"))]
    for name in matching_layers(run, patterns):
        column = run.layers.index(name)
        error = None if errors is None else errors[:, column]
        lines.append(_Line(index, name, epoch, values[:, column], error))
    return lines


def _draw(lines: Sequence[_Line], spans: Sequence[Sequence[windows.Span]], titles: Sequence[str], name: str) -> Figure:
    quantities = list(dict.fromkeys(line.quantity for line in lines))
    panels = [quantities] if len(titles) == 1 else [[shown] for shown in quantities]
    columns = min(len(panels), _MOST_COLUMNS)
    rows = -(-len(panels) // columns)
    width = _WIDE_INCHES if columns == 1 else _NARROW_INCHES
    limits = _epoch_limits(lines)
    bars = windows.bars(*_deficits(spans, limits, width - 0.6))
    strip_inches = max(windows.lane_count(bars) * windows.LANE_INCHES, 0.02)
    figure = new_figure(width * columns + 0.8, rows * (_HEIGHT_INCHES + strip_inches + 0.5) + 0.1)
    heights = [strip_inches, _HEIGHT_INCHES] * rows
    grid = figure.subplots(2 * rows, columns, squeeze=False, gridspec_kw={"height_ratios": heights})
    set_gaps(figure, h_pad=0.03, w_pad=0.04)
    for index, (strip, axes) in enumerate(zip(grid[0::2].ravel(), grid[1::2].ravel(), strict=True)):
        if index >= len(panels):
            strip.remove()
            axes.remove()
            continue
        _draw_panel(axes, [line for line in lines if line.quantity in panels[index]], titles, _value_limits(lines))
        axes.set_xlim(limits)
        windows.shade(axes, _common(spans))
        windows.draw_strip(strip, bars, windows.lane_count(bars), limits)
        strip.set_title(label(panels[index][0], 40) if len(titles) > 1 else title(titles[0], 60), parse_math=False)
        axes.set_ylabel(name if index % columns == 0 else "", parse_math=False)
    _add_legend(figure, grid[1, 0], beside=len(titles) == 1)
    if len(quantities) == 1:
        grid[1, 0].set_ylabel(f"{name}, {TOTAL}", parse_math=False)
    return figure


def _deficits(
    spans: Sequence[Sequence[windows.Span]], limits: tuple[float, float], width: float
) -> tuple[list[windows.Span], tuple[float, float], float, list[str]]:
    """The windows to draw as bars; in the colour of their run where the runs have different ones."""
    common = _common(spans)
    if common or not any(spans):
        return list(common), limits, width, [windows.INK] * len(common)
    every = [(span, f"C{run % _COLOURS}") for run, of_run in enumerate(spans) for span in of_run]
    return [span for span, _ in every], limits, width, [colour for _, colour in every]


def _common(spans: Sequence[Sequence[windows.Span]]) -> Sequence[windows.Span]:
    """The windows, if all runs that have any have the same."""
    different = {tuple(of_run) for of_run in spans if of_run}
    return different.pop() if len(different) == 1 else ()


def _epoch_limits(lines: Sequence[_Line]) -> tuple[float, float]:
    ends = [float(line.epoch[place]) for line in lines for place in (0, -1)]
    pad = 0.02 * (max(ends) - min(ends)) or 0.5
    return min(ends) - pad, max(ends) + pad


def _value_limits(lines: Sequence[_Line]) -> tuple[float, float]:
    """The same for all panels, so that layers can be compared; at most `DECADES` below the largest value."""
    values = np.concatenate([line.values for line in lines])
    values = values[np.isfinite(values) & (values > 0)]
    return max(float(values.min()), float(values.max()) * 10.0**-DECADES) / 1.6, float(values.max()) * 1.6


def _draw_panel(axes: Axes, lines: Sequence[_Line], titles: Sequence[str], limits: tuple[float, float]) -> None:
    colours = _colours(len(lines)) if len(titles) == 1 else [f"C{line.run % _COLOURS}" for line in lines]
    for line, colour in zip(lines, colours, strict=True):
        drawn = np.isfinite(line.values) & (line.values > 0)
        epoch, values = line.epoch[drawn], line.values[drawn]
        name = line.quantity if len(titles) == 1 else titles[line.run]
        marker = "o" if drawn.sum() == 1 else ""
        axes.plot(epoch, values, color=colour, label=label(name), marker=marker, markersize=3)
        if line.errors is not None:
            band = _ERRORS * line.errors[drawn]
            # a band that reaches zero goes down to the edge of the logarithmic axis
            lower = np.maximum(values - band, limits[0] / 10)
            axes.fill_between(epoch, lower, values + band, color=colour, alpha=0.2, linewidth=0)
    axes.set_yscale("log")
    axes.set_ylim(limits)
    label_epochs(axes)


def _colours(count: int) -> list[Any]:
    """Different colours for the lines of one panel; for many, the first apart and the layers by depth."""
    if count <= _COLOURS:
        return [f"C{index}" for index in range(count)]
    depth = np.linspace(0, 0.95, count - 1)
    return ["black", *matplotlib.colormaps["viridis"](depth)]


def _add_legend(figure: Figure, axes: Axes, *, beside: bool) -> None:
    """The names of the lines: beside one panel, below several; the figure grows by what they need."""
    handles, names = axes.get_legend_handles_labels()
    if len(names) < 2:
        return
    letters = max(len(name) for name in names)
    width, height = figure.get_size_inches()
    columns = -(-len(names) // _MOST_NAMES) if beside else max(1, int(width / (0.07 * letters + 0.5)))
    lines = -(-len(names) // columns)
    place: Literal["outside right upper", "outside lower left"]
    place = "outside right upper" if beside else "outside lower left"
    legend = figure.legend(handles=handles, labels=[str(name) for name in names], loc=place, ncols=columns)
    for text in legend.get_texts():
        text.set_parse_math(False)
    if beside:
        figure.set_size_inches(width + columns * (0.062 * letters + 0.3), max(height, 0.15 * lines + 0.4))
    else:
        figure.set_size_inches(width, height + 0.16 * lines)
