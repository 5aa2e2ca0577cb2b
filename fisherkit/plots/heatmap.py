"""Layer by epoch: where in the network, and when, the information about the data is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import matplotlib
import numpy as np
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Patch

from fisherkit.plots import windows
from fisherkit.plots.selection import exploded, matching_layers, quantity, run_titles, several
from fisherkit.plots.style import DECADES, label, label_epochs, new_figure, set_gaps, style, title
from fisherkit.recording import Trajectory

Scale = Literal["trace", "per_parameter", "share"]

_PANEL_INCHES = 3.1
_TITLE_LETTERS = 42
_ACCURACY_INCHES = 0.85
_LAYER_INCHES = 0.145  # one label of 7 points with air
_MOST_LABELS = 48
_LONGEST_NAME = 26
_MASKED = "0.8"


def heatmap(
    trajectories: Trajectory | Sequence[Trajectory],
    *,
    variable: str = "fisher_true",
    scale: Scale = "trace",
    titles: Sequence[str] | None = None,
    layers: Sequence[str] = (),
) -> Figure:
    """Each layer's trace over the epochs, accuracy above it, the deficit drawn where it was on.

    Several trajectories are drawn side by side on one colour scale. `scale` is "trace" (nats^2, logarithmic),
    "per_parameter" (trace divided by the layer's parameter count, logarithmic) or "share" (of the sum over all
    layers, linear). A row covers the time half-way to its neighbours. Cells that are zero or not measured
    are grey. `layers` draws only those that match one of the names or patterns (`layer1.*`).

    Raises:
        ValueError: An unknown variable or scale, no rows, nothing positive to draw.
    """
    maps = heatmaps(several(trajectories), variable=variable, scale=scale, titles=titles, layers=layers)
    with style():
        figure = new_figure(*maps.size)
        set_gaps(figure, h_pad=0.02, w_pad=0.03, wspace=0.02)
        maps.draw(figure)
        return figure


@dataclass(frozen=True, eq=False)
class _Panel:
    run: Trajectory
    layers: tuple[str, ...]
    values: Float64[np.ndarray, "time layer"]  # NaN where there is nothing to draw
    edges: Float64[np.ndarray, " edge"]  # of the rows, in epochs
    windows: list[windows.Span]

    @property
    def limits(self) -> tuple[float, float]:
        """Of the axis of epochs."""
        return float(self.edges[0]), float(self.edges[-1])


def _panel(run: Trajectory, variable: str, scale: Scale, patterns: Sequence[str]) -> _Panel:
    values = run.variable(variable)
    measured = np.isfinite(values).any(axis=1)  # an epoch's end between two measurements has a row without any
    if not len(run):
        raise ValueError("trajectory must have at least one row; got none. The run has not recorded anything yet.")
    with np.errstate(divide="ignore", invalid="ignore"):
        if scale == "per_parameter":
            values = values / run.parameters
        elif scale == "share":
            values = values / values.sum(axis=1, keepdims=True)
    chosen = matching_layers(run, patterns) if patterns else run.layers
    columns = [run.layers.index(name) for name in chosen]
    shown = np.isfinite(values) & ((values > 0) | (scale == "share"))
    if not measured.any():
        raise ValueError(f"variable must have been measured in some row; {variable!r} was in none.")
    if exploded(run):
        measured[np.flatnonzero(measured)[-1] :] = True  # what could not be measured any more is drawn, in grey
    drawn = np.where(shown, values, np.nan)[measured][:, columns]
    return _Panel(run, chosen, drawn, cell_edges(run.series["epoch"][measured]), windows.spans(run))


def cell_edges(epoch: Float64[np.ndarray, " time"]) -> Float64[np.ndarray, " edge"]:
    """The borders of the rows: half-way between neighbours, as far outside at both ends."""
    if len(epoch) == 1:
        return np.array([epoch[0] - 0.5, epoch[0] + 0.5])
    middle = (epoch[1:] + epoch[:-1]) / 2
    first, last = epoch[0] - (middle[0] - epoch[0]), epoch[-1] + (epoch[-1] - middle[-1])
    return np.concatenate([[first], middle, [last]])


def _norm(panels: Sequence[_Panel], scale: Scale) -> Normalize:
    """One colour scale for all panels."""
    values = np.concatenate([panel.values.ravel() for panel in panels])
    values = values[np.isfinite(values)]
    if not values.size:
        raise ValueError("variable must have a value above zero somewhere; got none, so there is nothing to draw.")
    top = float(values.max())
    if scale == "share":
        return Normalize(0, np.ceil(top * 10) / 10)
    bottom = max(float(values.min()), top * 10.0**-DECADES)
    return LogNorm(bottom, top) if bottom < top else LogNorm(bottom / 2, top * 2)


def _colour_label(variable: str, scale: Scale) -> str:
    name, unit = quantity(variable)
    return {
        "trace": f"{name} per layer{unit}",
        "per_parameter": f"{name} per parameter{unit}",
        "share": f"share of {name}",
    }[scale]


def heatmaps(
    runs: Sequence[Trajectory],
    *,
    variable: str = "fisher_true",
    scale: Scale = "trace",
    titles: Sequence[str] | None = None,
    layers: Sequence[str] = (),
    panel_inches: float = _PANEL_INCHES,
    most_labels: int = _MOST_LABELS,
) -> "Heatmaps":
    """What `heatmap` draws, for a figure or a part of one; errors as there."""
    if scale not in get_args(Scale):
        raise ValueError(f"scale must be one of {', '.join(get_args(Scale))}; got {scale!r}.")
    panels = [_panel(run, variable, scale, layers) for run in runs]
    norm = _norm(panels, scale)
    colour_label = _colour_label(variable, scale)
    return Heatmaps(panels, norm, run_titles(runs, titles), colour_label, panel_inches, most_labels)


@dataclass(frozen=True, eq=False)
class Heatmaps:
    """Panels side by side on one colour scale, with what stands above them and beside."""

    panels: Sequence[_Panel]
    norm: Normalize
    titles: Sequence[str]
    colour_label: str
    panel_inches: float  # width of each
    most_labels: int  # of layers; their number sets the largest height

    @property
    def _same_layers(self) -> bool:
        return len({panel.layers for panel in self.panels}) == 1

    @property
    def _bars(self) -> list[list[windows.Bar]]:
        return [windows.bars(panel.windows, panel.limits, self.panel_inches - 0.2) for panel in self.panels]

    @property
    def _lanes(self) -> int:
        return max(windows.lane_count(placed) for placed in self._bars)

    @property
    def _heights(self) -> list[float]:
        """Of accuracy, strip and map, in inches; 0 where there is nothing to show."""
        accuracy = any(_accuracies(panel.run) for panel in self.panels)
        layers = max(len(panel.layers) for panel in self.panels)
        map_inches = min(max(layers * _LAYER_INCHES, 1.6), self.most_labels * _LAYER_INCHES)
        return [_ACCURACY_INCHES * accuracy, self._lanes * windows.LANE_INCHES, map_inches]

    @property
    def size(self) -> tuple[float, float]:
        """Width and height that it needs, in inches."""
        labels = _label_inches(self.panels) * (1 if self._same_layers else len(self.panels))
        return self.panel_inches * len(self.panels) + labels + 0.9, sum(self._heights) + 0.75

    def draw(self, figure: Figure | SubFigure) -> None:
        """Draw it into an empty figure, or a part of one, under fisherkit's style."""
        accuracy, lanes = self._heights[0] > 0, self._lanes
        kept = [height for height in self._heights if height]
        columns = len(self.panels)
        grid = figure.subplots(len(kept), columns, sharex="col", squeeze=False, gridspec_kw={"height_ratios": kept})
        for column, panel in enumerate(self.panels):
            above = list(grid[:-1, column])
            named = column == 0 or not self._same_layers
            _draw_map(grid[-1, column], panel, self.norm, named=named, most_labels=self.most_labels)
            if accuracy:
                _draw_accuracy(above[0], panel, first=column == 0, last=column == columns - 1)
            if lanes:
                windows.draw_strip(above[-1], self._bars[column], lanes, panel.limits)
            letters = int(_TITLE_LETTERS * self.panel_inches / _PANEL_INCHES)
            grid[0, column].set_title(title(self.titles[column], letters), parse_math=False)
        _add_colour_bar(figure, list(grid[-1]), self.panels, self.norm, self.colour_label)
        if any(np.isnan(panel.values).any() for panel in self.panels):
            note = Patch(facecolor=_MASKED, label="zero or not measured")
            figure.legend(handles=[note], loc="outside lower right", handlelength=1)


def _label_inches(panels: Sequence[_Panel]) -> float:
    longest = max(len(label(name, _LONGEST_NAME)) for panel in panels for name in panel.layers)
    return 0.065 * longest + 0.3


def _draw_map(axes: Axes, panel: _Panel, norm: Normalize, *, named: bool, most_labels: int) -> None:
    count = len(panel.layers)
    colours = matplotlib.colormaps["viridis"].with_extremes(bad=_MASKED)
    borders = np.arange(count + 1) - 0.5
    values = np.ma.masked_invalid(panel.values.T)
    axes.pcolormesh(panel.edges, borders, values, norm=norm, cmap=colours, rasterized=True)
    axes.set_xlim(panel.limits)
    axes.set_ylim(count - 0.5, -0.5)  # the first layer on top
    windows.outline(axes, panel.windows, bottom=-0.5, top=count - 0.5)
    axes.spines[["top", "right"]].set_visible(True)
    label_epochs(axes)
    shown = _labelled_rows(count, most_labels)
    names = [label(panel.layers[row], _LONGEST_NAME) if named else "" for row in shown]
    axes.set_yticks(shown, names, parse_math=False, fontsize=7)
    if named:
        axes.set_ylabel("layer (input → output)", rotation=270, va="top", labelpad=10)


def _labelled_rows(count: int, most: int) -> list[int]:
    """All rows, or so many that their labels do not collide; the first and the last always."""
    step = -(-count // most)
    return [row for row in range(0, count - 1, step) if count - 1 - row >= step] + [count - 1]


def _accuracies(run: Trajectory) -> dict[str, np.ndarray]:
    """The accuracies that were measured, by what they were measured on."""
    found = {kind: run.series.get(f"{kind}_accuracy") for kind in ("train", "test")}
    return {kind: values for kind, values in found.items() if values is not None and np.isfinite(values).any()}


def _draw_accuracy(axes: Axes, panel: _Panel, *, first: bool, last: bool) -> None:
    windows.shade(axes, panel.windows)
    for kind, (colour, line) in {"train": ("C0", "--"), "test": ("C1", "-")}.items():
        values = _accuracies(panel.run).get(kind, np.full(len(panel.run), np.nan))
        there = np.isfinite(values)
        marker = "o" if there.sum() == 1 else ""
        epoch = panel.run.series["epoch"][there]
        axes.plot(epoch, values[there], color=colour, linestyle=line, marker=marker, markersize=3, label=kind)
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"] if first else [""] * 3)
    axes.tick_params(labelbottom=False)
    if first:
        axes.set_ylabel("accuracy")
    if last:
        # over the colour bar, which keeps the space free
        legend = axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.05), handlelength=1.6)
        legend.set_in_layout(False)


def _add_colour_bar(
    figure: Figure | SubFigure, maps: Sequence[Axes], panels: Sequence[_Panel], norm: Normalize, colour_label: str
) -> None:
    values = np.concatenate([panel.values.ravel() for panel in panels])
    assert norm.vmin is not None
    below = bool((values < norm.vmin).any())  # NaN is not below
    mesh = maps[0].collections[0]
    bar = figure.colorbar(mesh, ax=list(maps), extend="min" if below else "neither", aspect=30, pad=0.02)
    bar.set_label(colour_label)
