"""The deficit in a figure: from when to when, and how it is drawn."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from fisherkit.plots.style import label
from fisherkit.recording import Trajectory

LANE_INCHES = 0.17
LETTER_INCHES = 0.0605  # mean width of a letter of DejaVu Sans at 7 points, and a little
SHADE = "0.88"
_INK = "0.15"


@dataclass(frozen=True)
class Span:
    """A deficit that was on from epoch `start` to epoch `stop` (epochs completed)."""

    text: str
    start: float
    stop: float


def spans(trajectory: Trajectory) -> list[Span]:
    """When which deficit was on, as far as the rows go.

    From the attribute `deficit_windows`; without it from the flag `deficit_active`, which tells of a row whether
    a deficit was on in the training that led to it.
    """
    epoch = trajectory.series["epoch"]
    if not len(epoch):
        return []
    windows = trajectory.attributes.get("deficit_windows")
    if windows is None:
        found = _active_spans(epoch, trajectory.series.get("deficit_active"))
    else:
        found = [Span(label(str(w["text"])), w["start"], _end(w["stop"], epoch[-1])) for w in windows]
    return [Span(s.text, s.start, min(s.stop, float(epoch[-1]))) for s in found if s.start < epoch[-1]]


def _end(stop: float | None, last: float) -> float:
    return last if stop is None else stop


def _active_spans(epoch: np.ndarray, active: np.ndarray | None) -> list[Span]:
    if active is None:
        return []
    edges = np.diff(np.concatenate([[0], active, [0]]).astype(int))
    starts, stops = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1) - 1
    before = np.concatenate([epoch[:1], epoch])  # the epoch of the row before
    return [Span("deficit", float(before[a]), float(epoch[b])) for a, b in zip(starts, stops, strict=True)]


@dataclass(frozen=True)
class Bar:
    """Where the bar of a deficit and its text go in the strip above a panel; places in epochs."""

    span: Span
    lane: int
    text: str
    text_start: float
    colour: str

    def overlaps(self, other: "Bar", letter: float) -> bool:
        """Whether bar or text meet those of the other; `letter` is the width of one in epochs."""
        (start, stop), (other_start, other_stop) = self._extent(letter), other._extent(letter)
        return start < other_stop and other_start < stop

    def _extent(self, letter: float) -> tuple[float, float]:
        text_stop = self.text_start + letter * (len(self.text) + 1)
        return min(self.span.start, self.text_start), max(self.span.stop, text_stop)


def bars(
    windows: Sequence[Span], limits: tuple[float, float], width_inches: float, colours: Sequence[str] = ()
) -> list[Bar]:
    """A place for each window: its text in the bar or, if that is too short, beside it; as few lanes as it takes."""
    first, last = limits
    letter = LETTER_INCHES / width_inches * (last - first)
    room = max(int((last - first) / letter) - 1, 8)
    placed: list[Bar] = []
    for window, colour in zip(windows, colours or [_INK] * len(windows), strict=True):
        text = label(window.text, room)
        start = _text_start(window, letter * (len(text) + 1), limits)
        lane = 0
        while any(bar.lane == lane and bar.overlaps(Bar(window, lane, text, start, colour), letter) for bar in placed):
            lane += 1
        placed.append(Bar(window, lane, text, start, colour))
    return placed


def _text_start(window: Span, needed: float, limits: tuple[float, float]) -> float:
    if needed <= window.stop - window.start:
        return (window.start + window.stop - needed) / 2
    if window.stop + needed <= limits[1]:
        return window.stop
    if window.start - needed >= limits[0]:
        return window.start - needed
    return max(limits[0], limits[1] - needed)  # over the bar


def lane_count(placed: Sequence[Bar]) -> int:
    """How many lanes the bars take."""
    return max((bar.lane for bar in placed), default=-1) + 1


def draw_strip(axes: Axes, placed: Sequence[Bar], lanes: int, limits: tuple[float, float]) -> None:
    """The bars and their texts, in an axis of its own above a panel."""
    axes.set_xlim(limits)
    axes.set_ylim(0, max(lanes, 1))
    axes.set_axis_off()
    letter = (limits[1] - limits[0]) / 400
    for bar in placed:
        place, length = (bar.span.start, bar.lane + 0.06), bar.span.stop - bar.span.start
        axes.add_patch(Rectangle(place, length, 0.88, facecolor=SHADE, edgecolor=bar.colour, linewidth=0.7))
        axes.text(
            bar.text_start + 2 * letter, bar.lane + 0.47, bar.text,
            va="center", fontsize=7, color=bar.colour, parse_math=False,
        )  # fmt: skip


def outline(axes: Axes, windows: Sequence[Span], *, bottom: float, top: float) -> None:
    """Hatch and outline a heatmap where a deficit was on; the colours stay to be seen."""
    for window in windows:
        place, size = (window.start, bottom), (window.stop - window.start, top - bottom)
        axes.add_patch(Rectangle(place, *size, fill=False, hatch="//", edgecolor=(1, 1, 1, 0.45), linewidth=0))
        axes.add_patch(Rectangle(place, *size, fill=False, edgecolor="white", linewidth=1.8))
        axes.add_patch(Rectangle(place, *size, fill=False, edgecolor=_INK, linewidth=0.8, linestyle=(0, (4, 2))))


def shade(axes: Axes, windows: Sequence[Span]) -> None:
    """A light band behind lines where a deficit was on."""
    for window in windows:
        axes.axvspan(window.start, window.stop, facecolor=SHADE, edgecolor="none", zorder=0)
