"""How much the rows of a curve scatter about a smooth line, beyond their standard errors."""

import numpy as np
from scipy import stats

from fisherkit.analysis.curve import Curve

_MAD = 0.6744897501960817  # of a normal distribution, in standard deviations
_EFFICIENCY = 0.37  # of the median of absolute deviations: so many of the rows' degrees of freedom count


def row_noise(curve: Curve) -> np.ndarray:
    """The standard deviation of each row's logarithm, [row].

        noise_i^2 = s_i^2 + max(0, t^2 - median s^2)

    s_i: the standard error of log v_i. t: the scatter about the line between the two neighbours, d_i = y_i - (a y_{i-1} +
    b y_{i+1}) with a + b = 1, over sqrt(1 + a^2 + b^2), as a median of absolute values (a bend in the curve is an
    outlier). Where the neighbours' scatter is larger than the errors say (training noise), it counts; where it is
    smaller (the same images and draws in every row), the errors stand.
    """
    error = curve.log_stderr
    extra = max(0.0, _scatter(curve.epoch, curve.log) ** 2 - float(np.median(np.square(error))))
    return np.sqrt(np.square(error) + extra)


def critical_fall(rows: int, alpha: float) -> float:
    """How many standard errors the highest of so many rows must lie above another one to be told from noise.

    One-sided, by Bonferroni over the rows; Student's t, for the scatter is estimated from the rows themselves.
    """
    freedom = max(1.0, _EFFICIENCY * (rows - 2))
    return float(stats.t.ppf(1 - alpha / rows, freedom))


def _scatter(x: np.ndarray, y: np.ndarray) -> float:
    if len(y) < 3:
        return 0.0
    before = (x[2:] - x[1:-1]) / (x[2:] - x[:-2])
    deviation = y[1:-1] - before * y[:-2] - (1 - before) * y[2:]
    scaled = np.abs(deviation) / np.sqrt(1 + np.square(before) + np.square(1 - before))
    return float(np.median(scaled) / _MAD)
