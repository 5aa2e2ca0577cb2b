"""Many arms against one control: which differ by more than seeds do, with one error rate for all of them together."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float64
from scipy import optimize, special

Table = Float64[np.ndarray, "seed arm"]
Arms = Float64[np.ndarray, " arm"]

_POINTS = 64  # of each quadrature


@dataclass(frozen=True, eq=False)
class Losses:
    """What each arm lost against the control, with one estimate of the noise for all.

    `noise` is the standard deviation of one run about what arm and seed say.
    """

    loss: Arms  # control less arm
    stderr: Arms
    noise: float
    residuals: Float64[np.ndarray, " run"]


@dataclass(frozen=True, eq=False)
class Layout:
    """Which runs there are, and the least squares of their numbers on arm and seed; the first arm is the control."""

    there: Bool[np.ndarray, "seed arm"]
    design: Float64[np.ndarray, "run column"]
    inverse: Float64[np.ndarray, "column run"]
    freedom: int

    def losses(self, values: Float64[np.ndarray, " run"]) -> Losses:
        """The losses of one table, given the values of the runs that are there, row by row."""
        fit = self.inverse @ values
        residuals = values - self.design @ fit
        noise = float(np.sqrt(np.square(residuals).sum() / self.freedom)) if self.freedom else float("nan")
        contrast = self.inverse[:1] - self.inverse[1 : self.there.shape[1]]  # [arm, run]
        return Losses(contrast @ values, noise * np.sqrt(np.square(contrast).sum(axis=1)), noise, residuals)


def layout(there: Bool[np.ndarray, "seed arm"]) -> Layout:
    """The least squares for these runs: an indicator of each arm, then of each seed but the first."""
    seeds, columns = np.nonzero(there)
    design = np.concatenate([np.eye(there.shape[1])[columns], np.eye(there.shape[0])[seeds][:, 1:]], axis=1)
    return Layout(there, design, np.linalg.pinv(design), len(design) - int(np.linalg.matrix_rank(design)))


def losses(table: Table) -> Losses:
    """Least squares of a final number on arm and seed; the first column is the control's, NaN a run that is not there.

        y_sa = m_a + b_s + e_sa,   loss_a = m_0 - m_a,   noise^2 = sum e^2 / freedom,
        freedom = runs - arms - seeds + 1   (the control is one of the arms; no arm or seed apart from all others)

    A seed has its own level b_s (initialisation and order of the images are shared), as in paired differences; the
    noise is pooled over all arms, so that three seeds of eight arms have 16 degrees of freedom and not 2.
    """
    there = np.isfinite(table)
    return layout(there).losses(table[there])


def exceeds(loss: Arms, stderr: Arms, freedom: int, alpha: float) -> Bool[np.ndarray, " arm"]:
    """Which losses are above zero, so that in a fraction alpha of studies at most one is that has no loss.

    Dunnett's test in steps (Marcus 1976): the largest loss / stderr of k arms must exceed the critical value for k,
    the next that for k - 1, until one does not.
    """
    ratio = loss / stderr
    found = np.zeros(len(ratio), bool)
    for left, arm in zip(range(len(ratio), 0, -1), np.argsort(-ratio), strict=True):
        if not ratio[arm] > critical_ratio(left, freedom, alpha):
            break
        found[arm] = True
    return found


@lru_cache(maxsize=1024)
def critical_ratio(arms: int, freedom: int, alpha: float) -> float:
    """One-sided critical value of Dunnett's test (1955): P(max_a (z_0 - z_a) / (sqrt 2 S) <= c) = 1 - alpha.

    z: standard normal, S^2: chi-squared over its degrees of freedom; equal numbers of runs in all arms.
    """
    z, z_weight = np.polynomial.hermite_e.hermegauss(_POINTS)
    place, s_weight = np.polynomial.legendre.leggauss(_POINTS)
    s = np.sqrt(special.chdtri(freedom, (1 - place) / 2) / freedom)

    def below(c: float) -> float:
        inside = special.ndtr(np.sqrt(2) * c * s[:, None] + z[None, :]) ** arms
        return float(s_weight @ inside @ z_weight / (2 * np.sqrt(2 * np.pi)))

    return float(optimize.brentq(lambda c: below(c) - (1 - alpha), 0.0, 1e4))
