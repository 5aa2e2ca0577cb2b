"""Whether two numbers of many runs rise together, whatever the shape of the curve between them."""

from collections.abc import Sequence

import numpy as np
from scipy import stats

from fisherkit.analysis.intervals import Interval

_RESAMPLES = 4999
_FEWEST = 4  # points for an interval: fewer have next to no resamples that differ


def rank_correlation(x: Sequence[float], y: Sequence[float], *, level: float = 0.95, seed: int = 0) -> Interval:
    """Spearman's rank correlation with a bootstrap interval (percentiles, points resampled in pairs).

    NaN where either has fewer than 2 different values; no interval for fewer than 4 points.

    Raises:
        ValueError: x and y have different lengths.
    """
    if len(x) != len(y):
        raise ValueError(f"x and y must have the same length; got {len(x)} and {len(y)}.")
    points = np.array([x, y], dtype=float)  # [2, points]
    count = points.shape[1]
    value = float(_spearman(points[:, None])[0]) if count else np.nan
    if count < _FEWEST or not np.isfinite(value):
        return Interval(value, np.nan, np.nan, count)
    chosen = np.random.default_rng(seed).integers(count, size=(_RESAMPLES, count))
    found = _spearman(points[:, chosen])
    tail = (1 - level) / 2
    low, high = np.quantile(found[np.isfinite(found)], [tail, 1 - tail])
    return Interval(value, float(low), float(high), count)


def _spearman(points: np.ndarray) -> np.ndarray:
    """Pearson's correlation of the ranks, [2, samples, points] -> [samples]; NaN where one is constant."""
    ranks = stats.rankdata(points, axis=-1)
    ranks = ranks - ranks.mean(axis=-1, keepdims=True)
    scale = np.sqrt(np.square(ranks).sum(axis=-1).prod(axis=0))
    with np.errstate(invalid="ignore"):
        return np.asarray((ranks[0] * ranks[1]).sum(axis=-1) / scale)
