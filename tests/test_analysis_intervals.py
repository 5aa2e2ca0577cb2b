"""Intervals of means: what they hold, and how often."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fisherkit.analysis import Interval, mean_interval
from fisherkit.analysis.intervals import known_interval

SAMPLES = 3000
NOISE = 4 * np.sqrt(0.95 * 0.05 / SAMPLES)  # of a coverage


def coverage(draw, truth: float, count: int, samples: int = SAMPLES, **options) -> float:
    rng = np.random.default_rng(7)
    found = [mean_interval(draw(rng, count).tolist(), **options) for _ in range(samples)]
    return float(np.mean([each.low <= truth <= each.high for each in found]))


def normal(rng, count):
    return rng.normal(size=count)


def exponential(rng, count):
    return rng.exponential(size=count)


@pytest.mark.parametrize("count", [2, 3, 4, 5, 10])
def test_the_default_holds_its_level_for_normal_values(count):
    assert abs(coverage(normal, 0.0, count) - 0.95) < NOISE
    assert abs(coverage(normal, 0.0, count, level=0.8) - 0.8) < 4 * np.sqrt(0.8 * 0.2 / SAMPLES)


@pytest.mark.parametrize(("count", "expected"), [(3, 0.884), (5, 0.877), (10, 0.888)])
def test_skewed_values_are_held_as_often_as_the_table_says(count, expected):
    assert abs(coverage(exponential, 1.0, count) - expected) < 0.03


@pytest.mark.parametrize(("method", "expected"), [("percentile", 0.677), ("bca", 0.692)])
def test_other_bootstraps_are_far_too_narrow_for_three_seeds(method, expected):
    assert abs(coverage(normal, 0.0, 3, samples=400, method=method) - expected) < 0.1


def test_bootstrap_t_holds_skewed_values_of_ten_better():
    found = coverage(exponential, 1.0, 10, samples=400, method="bootstrap-t")
    assert found > coverage(exponential, 1.0, 10, samples=400)
    assert abs(found - 0.935) < 0.05


def test_the_default_is_students():
    values = [0.7, 0.72, 0.75, 0.71]
    low, high = stats.t.interval(0.9, 3, np.mean(values), stats.sem(values))
    found = mean_interval(values, level=0.9)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-12)
    assert (found.value, found.n) == (pytest.approx(np.mean(values)), 4)


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=8, unique=True), st.floats(-10, 10), st.floats(0.1, 10))
def test_shift_and_scale_carry_over(values, shift, scale):
    found, moved = mean_interval(values), mean_interval([shift + scale * value for value in values])
    assert moved.value == pytest.approx(shift + scale * found.value, abs=1e-9)
    if np.isfinite(found.low) and np.ptp(values) > 1e-6:
        assert moved.low == pytest.approx(shift + scale * found.low, abs=1e-6)
        assert found.low < found.value < found.high


@pytest.mark.parametrize("values", [[0.3], [0.5, 0.5, 0.5], [0.1 + 0.2, 0.3, 0.3], [0.0, 0.0]])
def test_one_value_and_equal_values_have_no_interval(values):
    found = mean_interval(values)
    assert found.value == pytest.approx(np.mean(values))
    assert np.isnan([found.low, found.high]).all()
    assert found.n == len(values)


def test_bootstrap_t_has_none_below_four_values():
    assert np.isnan(mean_interval([1.0, 2.0, 4.0], method="bootstrap-t").low)
    assert np.isfinite(mean_interval([1.0, 2.0, 4.0, 5.0], method="bootstrap-t").low)


@pytest.mark.parametrize("method", ["t", "bootstrap-t", "percentile", "bca"])
def test_the_same_values_give_the_same_interval(method):
    values = [0.1, 0.4, 0.2, 0.9, 0.3, 0.35]
    assert mean_interval(values, method=method) == mean_interval(values, method=method)


ERRORS = {
    "none": (([],), {}, "values must be at least one number; got none"),
    "nan": (([1.0, float("nan")],), {}, r"values must be finite; got \[1.0, nan\]. Leave out"),
    "level": (([1.0],), {"level": 95}, "level must be between 0 and 1, such as 0.95; got 95"),
    "method": (([1.0],), {"method": "x"}, "method must be one of t, bootstrap-t, percentile, bca; got 'x'"),
}


@pytest.mark.parametrize(("values", "options", "message"), ERRORS.values(), ids=ERRORS)
def test_wrong_arguments(values, options, message):
    with pytest.raises(ValueError, match=message):
        mean_interval(*values, **options)


def test_known_interval_leaves_out_what_is_not_known():
    assert known_interval([1.0, float("nan"), 3.0]) == mean_interval([1.0, 3.0])
    none = known_interval([float("nan")])
    assert isinstance(none, Interval)
    assert np.isnan([none.value, none.low, none.high]).all()
    assert none.n == 0
