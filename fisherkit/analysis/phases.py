"""Memorization and forgetting: when a quantity rose, peaked and fell, or the verdict that it did not."""

from dataclasses import dataclass

import numpy as np

from fisherkit.analysis.arms import exploded
from fisherkit.analysis.broken_line import BrokenLine, broken_line
from fisherkit.analysis.curve import Curve, curve
from fisherkit.analysis.noise import RowNoise, row_noise
from fisherkit.recording import Trajectory

Span = tuple[float, float]

FEWEST = 5  # rows: fewer have no change point and next to no scatter to compare with
ALPHA = 0.01  # how often noise about a constant may be called a rise or a fall
LEAST = 0.1  # of the peak: a smaller rise or fall is not called one, however certain
_PLATEAU = 0.1  # of the steepest slope of its direction: a piece that is flatter belongs to no phase
_FITS = 1.5  # chi-squared for each degree of freedom up to which the broken line stands for the rows
_LEARNS, _GUESSES = 0.02, 0.6  # fall of the training loss; training accuracy that no network has by guessing
_SHAPES = {
    "memorizes, then forgets": "rises, then falls",
    "forgets from the first row on": "falls",
    "never forgets": "rises",
}
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

    @property
    def shape(self) -> str:
        """The verdict in words for what is no Fisher information, such as an entropy."""
        return _SHAPES.get(self.verdict, self.verdict)


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
    if exploded(trajectory) or found.infinite:
        return "explodes"
    if not len(found):
        return "not measured"
    if not (found.value > 0).any():
        return "zero throughout"
    if not learns(trajectory):
        return "never learns"
    return "too few rows" if len(found) < FEWEST else None


def learns(trajectory: Trajectory) -> bool:
    """Whether training did anything: True where neither loss nor accuracy on the training images is recorded.

    It did if the training loss fell by 2 % from the first row that has one, or the training accuracy rose by 0.02, or
    was 0.6 at any time (it may all be learnt in the first epoch).
    """
    loss, accuracy = (_finite(trajectory, name) for name in ("train_loss", "train_accuracy"))
    if len(loss) < 2 and len(accuracy) < 2:
        return True
    fell = len(loss) > 1 and loss.min() < (1 - _LEARNS) * loss[0]
    return bool(fell or (len(accuracy) > 1 and accuracy.max() > min(accuracy[0] + _LEARNS, _GUESSES)))


def _finite(trajectory: Trajectory, name: str) -> np.ndarray:
    values = trajectory.series.get(name, np.array([]))
    return np.asarray(values[np.isfinite(values)])


@dataclass(frozen=True, eq=False)
class _Path:
    """What stands for the rows: epochs, logarithms, and the covariance of these."""

    epoch: np.ndarray
    log: np.ndarray
    covariance: np.ndarray

    @property
    def top(self) -> int:
        return int(np.argmax(self.log))

    def error(self, i: int, j: int) -> float:
        """The standard error of a difference."""
        variance = self.covariance[i, i] + self.covariance[j, j] - 2 * self.covariance[i, j]
        return float(np.sqrt(max(variance, 0.0)))


def _path(found: Curve, line: BrokenLine, noise: RowNoise) -> _Path:
    """The broken line where it describes the rows within their noise, which it averages; else the rows themselves."""
    freedom = len(found) - 2 * len(line.places) + 2
    if line.squares <= _FITS * freedom:
        return _Path(line.places, line.heights, line.covariance)
    return _Path(found.epoch, found.log, np.diag(np.square(noise.deviation)))


def _phases(found: Curve) -> Phases:
    noise = row_noise(found)
    line = broken_line(found.epoch, found.log, 1 / np.square(noise.deviation))
    path, critical = _path(found, line, noise), noise.critical(ALPHA)
    rises, falls = (_differs(path, other, critical) for other in (0, len(path.log) - 1))
    up = _span(line, rising=True) if rises else _NONE
    if falls is None or rises is None:
        return Phases("too noisy to tell", len(found))
    if not falls:
        return Phases("never forgets" if rises else "neither rises nor falls", len(found), memorization=up)
    top, ratio = path.top, float(np.exp(path.log[-1] - path.log[path.top]))
    images = np.hypot(found.log_stderr[-1], np.interp(path.epoch[top], found.epoch, found.log_stderr))
    return Phases(
        verdict="memorizes, then forgets" if rises else "forgets from the first row on",
        rows=len(found),
        peak_epoch=float(path.epoch[top]),
        peak=float(np.exp(path.log[top])),
        forgotten=1 - ratio,
        forgotten_stderr=ratio * float(np.hypot(images, path.error(top, -1))),
        memorization=up,
        forgetting=_span(line, rising=False),
        rise_half_time=_half_time(path, -1),
        decay_half_time=_half_time(path, +1),
    )


def _differs(path: _Path, other: int, critical: float) -> bool | None:
    """Whether the highest place lies above another by more than the noise and by a tenth.

    None where it cannot be told: it may lie above it (by 2 standard errors), or twice as high is not excluded.
    """
    difference, error = path.log[path.top] - path.log[other], path.error(path.top, other)
    enough = difference >= -np.log(1 - LEAST)
    if enough and difference > critical * error:
        return True
    return None if (enough and difference > 2 * error) or difference + 2 * error > np.log(2) else False


def _span(line: BrokenLine, *, rising: bool) -> Span:
    """First and last epoch of the pieces that rise before the top, or fall after it, without plateaus at their ends."""
    top = int(np.argmax(line.heights))
    slopes = np.diff(line.heights) / np.diff(line.places) * (1 if rising else -1)
    side = np.arange(len(slopes)) < top if rising else np.arange(len(slopes)) >= top
    steepest = max(slopes[side], default=0.0)
    if steepest <= 0:
        return _NONE
    steep = np.flatnonzero(side & (slopes >= _PLATEAU * steepest))
    return float(line.places[steep[0]]), float(line.places[steep[-1] + 1])


def _half_time(path: _Path, direction: int) -> float:
    """Epochs between the peak and the nearest place beside it where the value is half; on straight lines of the log."""
    top, half = path.top, path.log[path.top] - np.log(2)
    there = np.arange(top, len(path.log) if direction > 0 else -1, direction)
    below = there[path.log[there] <= half]
    if not len(below):
        return float("nan")
    outer, inner = below[0], below[0] - direction
    part = (path.log[inner] - half) / (path.log[inner] - path.log[outer])
    return float(abs(path.epoch[inner] + part * (path.epoch[outer] - path.epoch[inner]) - path.epoch[top]))
