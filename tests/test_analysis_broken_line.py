"""The broken line: knots that are there are found, knots that are not are not."""

import numpy as np
import pytest

from fisherkit.analysis.broken_line import MOST_KNOTS, broken_line


def fit(x, y, sd=1.0):
    x = np.asarray(x, float)
    return broken_line(x, np.asarray(y, float), np.full(len(x), sd**-2))


@pytest.mark.parametrize("knots", [(), (6,), (4, 9), (3, 8, 15), (3, 6, 9, 12, 15, 18)])
def test_exact_knots_are_found(knots):
    x = np.arange(24.0)
    heights = np.array([0.0, 2.0, 1.5, -1.0, -1.2, 0.5, 0.7, 3.0])[: len(knots) + 2]
    found = fit(x, np.interp(x, [0, *knots, 23], heights))
    np.testing.assert_array_equal(found.knots, knots)
    np.testing.assert_allclose(found.heights, heights, atol=1e-9)
    assert found.squares < 1e-18


def test_without_knots_it_is_linear_regression():
    rng = np.random.default_rng(0)
    x = np.sort(rng.uniform(0, 10, 12))
    y = 0.3 * x + 0.1 * rng.normal(size=12)
    found = fit(x, y, sd=0.1)
    assert len(found.knots) == 0
    slope, start = np.polyfit(x, y, 1)
    np.testing.assert_allclose(found.heights, start + slope * x[[0, -1]])
    design = np.stack([np.ones(12), x], axis=1)
    ends = design[[0, -1]]
    np.testing.assert_allclose(found.covariance, ends @ np.linalg.inv(design.T @ design) @ ends.T * 0.01)
    assert found.squares == pytest.approx((np.square(y - np.polyval([slope, start], x))).sum() / 0.01)


def test_noise_has_few_knots():
    rng = np.random.default_rng(1)
    counts = [len(fit(np.arange(30), rng.normal(size=30)).knots) for _ in range(100)]
    assert np.mean(np.array(counts) > 0) < 0.25


def test_weights_count():
    x, y = np.arange(10.0), np.zeros(10)
    y[5] = 3.0
    weight = np.ones(10)
    weight[5] = 1e-9
    assert len(broken_line(x, y, weight).knots) == 0


def test_short_and_flat_rows():
    assert len(fit([1, 2], [0, 1]).knots) == 0
    assert len(fit([1, 2, 3, 4], [0, 1, 0, 1]).knots) == 0  # (4 - 3) / 2 knots: none
    np.testing.assert_allclose(fit(np.arange(8), np.full(8, 2.0)).heights, 2.0)
    assert len(fit(np.arange(60), np.sin(np.arange(60))).knots) <= MOST_KNOTS
