"""How much the rows of a curve scatter about a smooth line, beyond their standard errors."""

from dataclasses import dataclass

import numpy as np
from scipy import special

from fisherkit.analysis.curve import Curve

_MAD = 0.6744897501960817  # of a normal distribution, in standard deviations
_EFFICIENCY = 0.37  # of the median of absolute deviations: so many of the rows' degrees of freedom count
_LEAST = 1e-6  # so that exact rows have a weight


@dataclass(frozen=True, eq=False)
class RowNoise:
    """The standard deviation of each row's logarithm, [row], and the degrees of freedom it is known to."""

    deviation: np.ndarray
    freedom: float

    def critical(self, alpha: float) -> float:
        """How many standard errors one of these rows must lie above another to be told from noise.

        One-sided, by Bonferroni over the rows that might be the highest; Student's t.
        """
        return float(special.stdtrit(self.freedom, 1 - alpha / len(self.deviation)))


def row_noise(curve: Curve) -> RowNoise:
    """Standard errors and scatter of the rows of a curve.

        noise_i^2 = s_i^2 + max(0, t^2 - median s^2)

    s_i: the standard error of log v_i. t: the scatter about the line between the two neighbours,
    d_i = y_i - (a y_{i-1} + b y_{i+1}) with a + b = 1, over sqrt(1 + a^2 + b^2), as a median of absolute values (a bend
    in the curve is an outlier). Where it is larger than the errors say (training noise), it counts; where it is smaller
    (the same images and draws in every row), the errors stand. The freedom is Satterthwaite's: 0.37 of that of n - 2
    rows (the efficiency of a median) for the part that comes of the scatter, none needed for the errors.
    """
    errors = np.square(curve.log_stderr)
    extra = max(0.0, _scatter(curve.epoch, curve.log) ** 2 - float(np.median(errors)))
    share = extra / max(extra + float(np.median(errors)), np.finfo(float).tiny)
    rows = max(1.0, _EFFICIENCY * (len(curve) - 2))
    return RowNoise(np.asarray(np.sqrt(errors + extra + _LEAST**2)), rows / max(share, 1e-3) ** 2)


def _scatter(x: np.ndarray, y: np.ndarray) -> float:
    if len(y) < 3:
        return 0.0
    before = (x[2:] - x[1:-1]) / (x[2:] - x[:-2])
    deviation = y[1:-1] - before * y[:-2] - (1 - before) * y[2:]
    scaled = np.abs(deviation) / np.sqrt(1 + np.square(before) + np.square(1 - before))
    return float(np.median(scaled) / _MAD)
