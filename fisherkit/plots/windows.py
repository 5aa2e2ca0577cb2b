"""The deficit in a figure: from when to when, and how it is drawn."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from fisherkit.plots.style import label
from fisherkit.recording import Trajectory
from fisherkit.recording.layout import window_text

LANE_INCHES = 0.17
LETTER_INCHES = 0.0605  # mean width of a letter of DejaVu Sans at 7 points, and a little
SHADE = "0.88"
INK = "0.15"


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
        found = [Span(label(window_text(w)), w["start"], _end(w["stop"], epoch[-1])) for w in windows]
    return [Span(s.text, s.start, min(s.stop, float(epoch[-1]))) for s in found if s.start < epoch[-1]]


def _end(stop: float | None, last: float) -> float:
    return float(last if stop is None else stop)


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
    text: str
    anchor: float
    side: Literal["left", "center", "right"]  # of the text that is at the anchor
    extent: tuple[float, float]  # of bar and text together
    colour: str
    lane: int = 0


def bars(
    windows: Sequence[Span], limits: tuple[float, float], width_inches: float, colours: Sequence[str] = ()
) -> list[Bar]:
    """A place for each window: its text in the bar or, if that is too short, beside it; as few lanes as it takes.

    `limits` are those of the epochs' axis, `width_inches` is about what the panel will have.
    """
    letter = LETTER_INCHES / width_inches * (limits[1] - limits[0])
    placed: list[Bar] = []
    for window, colour in zip(windows, colours or [INK] * len(windows), strict=True):
        bar = _bar(window, limits, letter, colour)
        taken = {other.lane for other in placed if _overlap(bar.extent, other.extent)}
        lane = next(lane for lane in range(len(placed) + 1) if lane not in taken)
        placed.append(replace(bar, lane=lane))
    return placed


def _bar(window: Span, limits: tuple[float, float], letter: float, colour: str) -> Bar:
    start, stop = window.start, window.stop
    needed = letter * (len(window.text) + 2)
    if needed <= stop - start:
        return Bar(window, window.text, (start + stop) / 2, "center", (start, stop), colour)
    right = limits[1] - stop >= min(needed, start - limits[0])
    room = max(limits[1] - stop if right else start - limits[0], 10 * letter)
    text = label(window.text, int(room / letter) - 2)
    length = letter * (len(text) + 2)
    if right:
        return Bar(window, text, stop + letter / 2, "left", (start, stop + length), colour)
    return Bar(window, text, start - letter / 2, "right", (start - length, stop), colour)


def _overlap(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one[0] < other[1] and other[0] < one[1]


def lane_count(placed: Sequence[Bar]) -> int:
    """How many lanes the bars take."""
    return max((bar.lane for bar in placed), default=-1) + 1


def draw_strip(axes: Axes, placed: Sequence[Bar], lanes: int, limits: tuple[float, float]) -> None:
    """The bars and their texts, in an axis of its own above a panel."""
    axes.set_xlim(limits)
    axes.set_ylim(0, max(lanes, 1))
    axes.set_axis_off()
    for bar in placed:
        place, length = (bar.span.start, bar.lane + 0.06), bar.span.stop - bar.span.start
        axes.add_patch(Rectangle(place, length, 0.88, facecolor=SHADE, edgecolor=bar.colour, linewidth=0.7))
        axes.text(
            bar.anchor, bar.lane + 0.47, bar.text,
            ha=bar.side, va="center", fontsize=7, color=bar.colour, parse_math=False,
        )  # fmt: skip


def outline(axes: Axes, windows: Sequence[Span], *, bottom: float, top: float) -> None:
    """Hatch and outline a heatmap where a deficit was on; the colours stay to be seen."""
    for window in windows:
        place, size = (window.start, bottom), (window.stop - window.start, top - bottom)
        axes.add_patch(Rectangle(place, *size, fill=False, hatch="//", edgecolor=(1, 1, 1, 0.45), linewidth=0))
        axes.add_patch(Rectangle(place, *size, fill=False, edgecolor="white", linewidth=1.8))
        axes.add_patch(Rectangle(place, *size, fill=False, edgecolor=INK, linewidth=0.8, linestyle=(0, (4, 2))))


def shade(axes: Axes, windows: Sequence[Span]) -> None:
    """A light band behind lines where a deficit was on."""
    for window in windows:
        axes.axvspan(window.start, window.stop, facecolor=SHADE, edgecolor="none", zorder=0)
