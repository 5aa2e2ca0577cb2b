"""Hall's interval: what defines it, its limits, and that it takes the error of skewness away."""

import numpy as np
import pytest
from scipy import stats

from fisherkit.fisher.intervals import edgeworth_terms, hall_interval, normal_is_trusted


def transformed(t, skewness: float, groups: int):
    """g(T) as Hall (1992) defines it."""
    a, b = skewness / 3 / groups**0.5, skewness / 6 / groups**0.5
    return t + a * t**2 + a**2 * t**3 / 3 + b


@pytest.mark.parametrize("skewness", [-3.0, -0.5, 1e-7, 1e-9, 0.7, 2.0, 6.5])
def test_the_studentised_limits_map_to_students_quantiles(skewness: float):
    groups, mean, stderr = 50, 100.0, 1.3
    lower, upper = hall_interval(mean, stderr, skewness, groups, level=0.9)
    quantile = stats.t.ppf(0.95, groups - 1)
    assert transformed((mean - lower) / stderr, skewness, groups) == pytest.approx(quantile, rel=1e-7)
    assert transformed((mean - upper) / stderr, skewness, groups) == pytest.approx(-quantile, rel=1e-7)


@pytest.mark.parametrize("skewness", [0.0, np.nan])
def test_without_skewness_it_is_students_interval(skewness: float):
    expected = stats.t.interval(0.99, 11, loc=5.0, scale=0.4)
    assert hall_interval(5.0, 0.4, skewness, 12, level=0.99) == pytest.approx(expected, rel=1e-12)


def test_negative_skewness_mirrors_positive():
    lower, upper = hall_interval(50.0, 2.0, 3.0, 40)
    assert hall_interval(50.0, 2.0, -3.0, 40) == pytest.approx([100 - upper, 100 - lower])
    assert upper - 50 > 50 - lower


def test_a_trace_is_not_negative_and_an_exact_one_has_no_width():
    assert hall_interval(1.0, 0.8, 0.1, 20)[0] == 0
    assert hall_interval(3.0, 0.0, 5.0, 20).tolist() == [3.0, 3.0]


def test_one_value_has_no_interval():
    assert np.isnan(hall_interval(1.0, np.nan, np.nan, 1)).all()


def test_layers_have_an_axis_of_their_own():
    rows = hall_interval([1.0, 2.0, 3.0], [0.1, 0.2, 0.3], [0.0, 1.0, 2.0], [30, 30, 10])
    assert rows.shape == (3, 2)
    assert (rows[1] == hall_interval(2.0, 0.2, 1.0, 30)).all()


@pytest.mark.parametrize("level", [0, 1, 95])
def test_level_is_a_probability(level: float):
    with pytest.raises(ValueError, match=r"level must be between 0 and 1, for example 0\.95; got"):
        hall_interval(1.0, 0.1, 0.0, 10, level=level)


def test_the_terms_are_those_of_the_edgeworth_expansion():
    """P(T <= x) of 200 exponential values, simulated: a x^2 + b is what the normal one leaves, but O(1 / 200)."""
    rng = np.random.default_rng(0)
    samples = (rng.exponential(size=(10_000, 200)) for _ in range(15))
    t = np.concatenate([(y.mean(1) - 1) / stats.sem(y, axis=1) for y in samples])
    a, b = edgeworth_terms(2.0, 200)
    for x in (-2.0, -1.0, 0.0, 1.0, 2.0):
        left = (t <= x).mean() - stats.norm.cdf(x)
        assert left == pytest.approx((a * x**2 + b) * stats.norm.pdf(x), abs=0.004)


def test_both_tails_of_skewed_values_are_missed_alike():
    """50 exponential values a sample, 20,000 samples: each tail should be missed in 2.5 %."""
    y = np.random.default_rng(0).exponential(size=(20_000, 50))
    mean, stderr = y.mean(1), stats.sem(y, axis=1)
    lower, upper = hall_interval(mean, stderr, stats.skew(y, axis=1), 50).T
    assert (upper < 1).mean() == pytest.approx(0.03, abs=0.006)
    assert (lower > 1).mean() == pytest.approx(0.025, abs=0.006)
    assert (mean + 1.96 * stderr < 1).mean() > 0.05  # the normal interval misses one tail twice as often as it says
    assert (mean - 1.96 * stderr > 1).mean() < 0.015


def test_cochrans_rule():
    assert normal_is_trusted(2.0, 101)
    assert not normal_is_trusted(2.0, 100)
    assert not normal_is_trusted(-2.0, 100)
    assert normal_is_trusted(np.nan, 2)
