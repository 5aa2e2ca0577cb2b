"""Memorization and forgetting: when a quantity rose, peaked and fell, or the verdict that it did not."""

from dataclasses import dataclass

import numpy as np

from fisherkit.analysis.arms import exploded
from fisherkit.analysis.broken_line import BrokenLine, broken_line
from fisherkit.analysis.curve import Curve, curve
from fisherkit.analysis.noise import critical_fall, row_noise
from fisherkit.recording import Trajectory

Span = tuple[float, float]

FEWEST = 5  # rows: fewer have no change point and next to no scatter to compare with
ALPHA = 0.01  # how often noise about a constant may be called a rise or a fall
LEAST = 0.1  # of the peak: a smaller rise or fall is not called one, however certain
_PLATEAU = 0.1  # of the steepest slope of its direction: a piece that is flatter belongs to no phase
_LEARNS = 0.02  # the loss must have fallen by that share
_NONE: Span = (float("nan"), float("nan"))


@dataclass(frozen=True)
class Phases:
    """What a quantity did in a run. Epochs; NaN where the verdict says that there is no such thing.

    `forgotten` is 1 - last / peak with its standard error over images. `memorization` and `forgetting` are first and
    last epoch of the phases.
    """

    verdict: str
    rows: int
    peak_epoch: float = float("nan")
    peak: float = float("nan")
    forgotten: float = float("nan")
    forgotten_stderr: float = float("nan")
    memorization: Span = _NONE
    forgetting: Span = _NONE
    rise_half_time: float = float("nan")
    decay_half_time: float = float("nan")


def phases(trajectory: Trajectory, name: str = "fisher_true", *, layer: str | None = None) -> Phases:
    """The phases of a variable or a series; of one layer, or of all together.

    Raises:
        ValueError: there is no such variable, series or layer; lists those there are.
    """
    found = curve(trajectory, name, layer=layer)
    stop = _stopped(trajectory, found)
    return Phases(stop, len(found)) if stop else _phases(found)


def _stopped(trajectory: Trajectory, found: Curve) -> str | None:
    """The verdict where no phases can be told."""
    if exploded(trajectory):
        return "explodes"
    if not len(found):
        return "not measured"
    if not (found.value > 0).any():
        return "zero throughout"
    if len(found) < FEWEST:
        return "too few rows"
    return None if learns(trajectory) else "never learns"


def learns(trajectory: Trajectory) -> bool:
    """Whether the training loss fell by 2 % at least from the first row in which it was measured; True if it never was."""
    loss = trajectory.series.get("train_loss", np.array([]))
    known = loss[np.isfinite(loss)]
    return len(known) < 2 or bool(known.min() < (1 - _LEARNS) * known[0])


def _phases(found: Curve) -> Phases:
    noise = row_noise(found)
    top = int(np.argmax(found.log))
    rises = _differs(found.log[: top + 1], noise[: top + 1], top, 0, len(found))
    falls = _differs(found.log, noise, top, len(found) - 1, len(found))
    line = broken_line(found.epoch, found.log, 1 / np.square(np.maximum(noise, 1e-6)))
    up = _span(line, line.highest, rising=True) if rises else _NONE
    if not falls:
        return Phases("never forgets" if rises else "neither rises nor falls", len(found), memorization=up)
    last = found.value[-1]
    ratio = float(last / found.value[top])
    return Phases(
        verdict="memorizes, then forgets" if rises else "forgets from the first row on",
        rows=len(found),
        peak_epoch=float(found.epoch[top]),
        peak=float(found.value[top]),
        forgotten=1 - ratio,
        forgotten_stderr=ratio * float(np.hypot(found.log_stderr[top], found.log_stderr[-1])),
        memorization=up,
        forgetting=_span(line, line.highest, rising=False),
        rise_half_time=_half_time(found, top, -1),
        decay_half_time=_half_time(found, top, +1),
    )


def _differs(log: np.ndarray, noise: np.ndarray, top: int, other: int, rows: int) -> bool:
    """Whether the highest row lies above another by more than noise, and by a tenth at least."""
    rise = log[top] - log[other]
    error = np.hypot(noise[top], noise[other])
    return bool(rise > critical_fall(rows, ALPHA) * error and rise >= -np.log(1 - LEAST))


def _span(line: BrokenLine, top: float, *, rising: bool) -> Span:
    """First and last epoch of the pieces that rise before the top, or fall after it, without plateaus at their ends."""
    slopes = np.diff(line.heights) / np.diff(line.places) * (1 if rising else -1)
    side = line.places[1:] <= top if rising else line.places[:-1] >= top
    steep = np.flatnonzero(side & (slopes > 0))
    if not len(steep):
        return _NONE
    steep = steep[slopes[steep] >= _PLATEAU * slopes[steep].max()]
    return float(line.places[steep[0]]), float(line.places[steep[-1] + 1])


def _half_time(found: Curve, top: int, direction: int) -> float:
    """Epochs between the peak and the nearest place beside it where the value is half; on straight lines of the log."""
    half = found.log[top] - np.log(2)
    there = np.arange(top, len(found) if direction > 0 else -1, direction)
    below = there[found.log[there] <= half]
    if not len(below):
        return float("nan")
    outer, inner = below[0], below[0] - direction
    part = (found.log[inner] - half) / (found.log[inner] - found.log[outer])
    place = found.epoch[inner] + part * (found.epoch[outer] - found.epoch[inner])
    return float(abs(place - found.epoch[top]))
