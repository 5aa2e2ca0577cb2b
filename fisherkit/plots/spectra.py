"""The spectrum of the Fisher information over the epochs: leading eigenvalues of chosen layers, effective rank."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float64
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from fisherkit.plots import windows
from fisherkit.plots.selection import matching_layers
from fisherkit.plots.style import DECADES, label, label_epochs, new_figure, set_gaps, style
from fisherkit.recording import Trajectory
from fisherkit.recording.layout import eigenvalue_names

MOST_LAYERS = 6  # shown where none are named
_COLUMNS = 3
_PANEL_INCHES, _HEIGHT_INCHES, _RANK_INCHES = 2.6, 2.0, 2.1
_LETTERS = 36
_ERRORS = 2  # half-width of the band in standard errors
_TRACE: dict[str, Any] = {"color": "0.35", "linestyle": (0, (4, 2)), "linewidth": 1.0}

Line = Float64[np.ndarray, " time"]


@dataclass(frozen=True, eq=False)
class _Layer:
    name: str
    epoch: Line
    eigenvalues: Float64[np.ndarray, "time k"]
    trace: Line
    rank: Line
    error: Line


def spectrum(trajectory: Trajectory, *, layers: Sequence[str] = ()) -> Figure:
    """The leading eigenvalues of chosen layers and their trace over the epochs, and below them effective ranks.

    `layers` are names or patterns (`layer1.*`); by default the six with the largest trace. Effective ranks are those
    corrected for the number of images, with +-2 standard errors as a band. Deficits are shaded and named above.

    Raises:
        ValueError: No spectrum was recorded; a pattern without a layer; nothing positive to draw.
    """
    names = eigenvalue_names(trajectory.variables)
    if not names:
        raise ValueError(
            "trajectory must hold spectra; got none. Record them: `fisherkit track --spectrum 10`, or "
            "FisherTracker(spectrum=10)."
        )
    chosen = matching_layers(trajectory, layers) if layers else _largest(trajectory)
    shown = [_layer(trajectory, name, names) for name in chosen]
    if not any((layer.eigenvalues > 0).any() for layer in shown):
        raise ValueError("layers must have an eigenvalue above zero somewhere; got none, so there is nothing to draw.")
    with style():
        return _draw(shown, windows.spans(trajectory))


def _largest(run: Trajectory) -> tuple[str, ...]:
    """Those with the largest trace, averaged over the rows that have a spectrum, in the model's order."""
    trace = run.variable("fisher_spectrum_trace")
    mean = trace[np.isfinite(trace).all(1)].mean(0)
    return tuple(run.layers[index] for index in sorted(np.argsort(-mean, kind="stable")[:MOST_LAYERS]))


def _layer(run: Trajectory, name: str, names: Sequence[str]) -> _Layer:
    column = run.layers.index(name)
    rows = np.isfinite(run.variable("fisher_spectrum_trace")[:, column])

    def over_time(variable: str) -> Line:
        return np.asarray(run.variable(variable)[rows, column])

    return _Layer(
        name=name,
        epoch=run.series["epoch"][rows],
        eigenvalues=np.stack([over_time(variable) for variable in names], 1),
        trace=over_time("fisher_spectrum_trace"),
        rank=over_time("fisher_effective_rank_corrected"),
        error=over_time("fisher_effective_rank_stderr"),
    )


def _draw(layers: Sequence[_Layer], spans: Sequence[windows.Span]) -> Figure:
    columns = min(len(layers), _COLUMNS)
    rows = -(-len(layers) // columns)
    limits = _epoch_limits(layers[0].epoch)
    bars = windows.bars(spans, limits, _PANEL_INCHES - 0.6)
    strip = max(windows.lane_count(bars) * windows.LANE_INCHES, 0.02)
    heights = [strip, _HEIGHT_INCHES] * rows + [_RANK_INCHES]
    figure = new_figure(_PANEL_INCHES * columns + 0.8 + 0.8 * (columns == 1), sum(heights) + 0.6 * rows + 0.6)
    set_gaps(figure, h_pad=0.03, w_pad=0.04)
    grid = GridSpec(len(heights), columns, figure=figure, height_ratios=heights)
    values = _value_limits(layers)
    for index, layer in enumerate(layers):
        row, column = divmod(index, columns)
        above, axes = (figure.add_subplot(grid[2 * row + part, column]) for part in (0, 1))
        _draw_eigenvalues(axes, layer, values)
        _set_epochs(axes, limits, spans, named=index + columns >= len(layers))
        windows.draw_strip(above, bars, windows.lane_count(bars), limits)
        above.set_title(label(layer.name, _LETTERS), parse_math=False)
        axes.set_ylabel("eigenvalue (nats²)" if column == 0 else "")
        axes.tick_params(labelleft=column == 0)
    below = figure.add_subplot(grid[-1, :])
    _draw_ranks(below, layers)
    _set_epochs(below, limits, spans, named=True)
    _add_legend(figure, layers[0].eigenvalues.shape[1])
    return figure


def _epoch_limits(epoch: Line) -> tuple[float, float]:
    pad = 0.02 * (epoch[-1] - epoch[0]) or 0.5
    return float(epoch[0] - pad), float(epoch[-1] + pad)


def _value_limits(layers: Sequence[_Layer]) -> tuple[float, float]:
    """The same for all panels, so that layers can be compared; at most `DECADES` below the largest trace."""
    values = np.concatenate([layer.eigenvalues.ravel() for layer in layers])
    top = max(float(layer.trace.max()) for layer in layers)
    return max(float(values[values > 0].min()), top * 10.0**-DECADES) / 1.6, top * 1.6


def _set_epochs(axes: Axes, limits: tuple[float, float], spans: Sequence[windows.Span], *, named: bool) -> None:
    label_epochs(axes)
    axes.set_xlim(limits)
    windows.shade(axes, spans)
    if not named:
        axes.set_xlabel("")
        axes.tick_params(labelbottom=False)


def _draw_eigenvalues(axes: Axes, layer: _Layer, limits: tuple[float, float]) -> None:
    marker = "o" if len(layer.epoch) == 1 else ""
    axes.plot(layer.epoch, _positive(layer.trace), marker=marker, markersize=3, **_TRACE)
    for colour, values in zip(_colours(layer.eigenvalues.shape[1]), layer.eigenvalues.T, strict=True):
        axes.plot(layer.epoch, _positive(values), color=colour, linewidth=1.0, marker=marker, markersize=3)
    axes.set_yscale("log")
    axes.set_ylim(limits)


def _positive(values: Line) -> Line:
    """With gaps where a logarithmic axis has no place."""
    return np.where(values > 0, values, np.nan)


def _colours(count: int) -> np.ndarray:
    return np.asarray(matplotlib.colormaps["viridis"](np.linspace(0, 0.9, count)))


def _draw_ranks(axes: Axes, layers: Sequence[_Layer]) -> None:
    marker = "o" if len(layers[0].epoch) == 1 else ""
    for colour, layer in zip(_layer_colours(len(layers)), layers, strict=True):
        rank, band = _positive(layer.rank), _ERRORS * layer.error
        axes.plot(layer.epoch, rank, color=colour, marker=marker, markersize=3, label=label(layer.name, _LETTERS))
        axes.fill_between(layer.epoch, rank - band, rank + band, color=colour, alpha=0.2, linewidth=0)
    axes.set_yscale("log")
    axes.set_ylim(_rank_limits(layers))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylabel("effective rank")


def _rank_limits(layers: Sequence[_Layer]) -> tuple[float, float]:
    """Below 1 there is only noise."""
    ranks = np.concatenate([layer.rank for layer in layers])
    ends = np.concatenate([ranks, *(layer.rank + _ERRORS * layer.error for layer in layers)])
    ranks, ends = ranks[ranks > 0], ends[np.isfinite(ends)]
    return min([0.9, *ranks / 1.1]), max([2.0, *ends * 1.1])


def _layer_colours(count: int) -> list[Any]:
    if count <= len(rcParams["axes.prop_cycle"]):
        return [f"C{index}" for index in range(count)]
    return list(matplotlib.colormaps["viridis"](np.linspace(0, 0.95, count)))


def _add_legend(figure: Figure, k: int) -> None:
    colours = _colours(k)
    handles = [Line2D([], [], **_TRACE), *(Line2D([], [], color=colours[index]) for index in sorted({0, k - 1}))]
    names = ["trace", "largest eigenvalue", f"eigenvalue {k}"][: len(handles)]
    lines, layers = figure.axes[-1].get_legend_handles_labels()
    legend = figure.legend(
        handles=[*handles, *lines], labels=[*names, *map(str, layers)], loc="outside lower left", ncols=3
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
