"""The rank correlation and its interval."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fisherkit.analysis.correlation import rank_correlation

points = st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=4, max_size=12)


@settings(max_examples=30, deadline=None)
@given(points)
def test_it_is_spearmans(pairs):
    x, y = ([float(number) for number in column] for column in zip(*pairs, strict=True))
    found = rank_correlation(x, y)
    if len(set(x)) < 2 or len(set(y)) < 2:
        assert np.isnan(found.value)
        assert np.isnan([found.low, found.high]).all()
    else:
        assert found.value == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
        assert -1 - 1e-9 <= found.low <= found.high <= 1 + 1e-9
    assert found.n == len(pairs)


def test_only_the_order_counts():
    x = [0.01, 0.1, 1.0, 10.0, 100.0]
    assert rank_correlation(x, [5.0, 4.0, 3.0, 2.0, 1.0]).value == pytest.approx(-1)
    assert rank_correlation(x, list(np.log(x))) == rank_correlation([1.0, 2.0, 3.0, 4.0, 5.0], x)


def test_the_interval_is_that_of_all_resamples():
    """Enumerated: with 4 points there are 256 resamples, of which some have no correlation."""
    x, y = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 3.0, 2.0, 4.0])
    every = np.stack(np.meshgrid(*[range(4)] * 4), axis=-1).reshape(-1, 4)
    kept = [row for row in every if len(set(row)) > 1]
    values = np.array([stats.spearmanr(x[row], y[row]).statistic for row in kept])
    found = rank_correlation(list(x), list(y))
    assert found.low == pytest.approx(np.quantile(values, 0.025), abs=1e-9)
    assert found.high == pytest.approx(np.quantile(values, 0.975), abs=1e-9)


def test_few_points_have_no_interval():
    found = rank_correlation([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    assert found.value == pytest.approx(1)
    assert np.isnan([found.low, found.high]).all()
    assert np.isnan(rank_correlation([], []).value)
    assert np.isnan(rank_correlation([1.0], [1.0]).value)


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="x and y must have the same length; got 1 and 2"):
        rank_correlation([1.0], [1.0, 2.0])
