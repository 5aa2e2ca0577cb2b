"""Summaries of per-image values: the formulas, finite populations, stopping."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from fisherkit.fisher.intervals import hall_interval
from fisherkit.fisher.tally import Column, Summary, Tally, check_population, finite_population, skewness_note


def column(*batches: tuple[list[list[float]], int]) -> Column:
    made = Column()
    for values, images in batches:
        made.add(torch.tensor(values, dtype=torch.float64), images)
    return made


def skewed(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).lognormal(size=shape))


# ---- mean, standard errors, skewness


def test_stderr_is_the_textbook_one():
    summary = column(([[1.0, 2.0, 4.0]], 3), ([[9.0]], 1)).summary(draws=1)
    assert summary.mean == 4.0
    assert summary.stderr == pytest.approx(np.std([1, 2, 4, 9], ddof=1) / 2)
    assert math.isnan(summary.stderr_draws)
    assert summary.groups == 4


def test_batches_of_unequal_size_are_weighted_by_their_images():
    summary = column(([[2.0], [4.0]], 30), ([[9.0], [9.0]], 10)).summary(draws=2)
    assert summary.mean == pytest.approx((30 * 3 + 10 * 9) / 40)
    assert summary.stderr_draws == pytest.approx(30 / 40 * 1.0)


def test_skewness_is_scipys_whatever_the_batches():
    values = skewed(1, 100)
    expected = stats.skew(values[0])
    for size in (1, 7, 100):
        assert column(*((part.tolist(), part.shape[1]) for part in values.split(size, 1))).summary(
            1
        ).skewness == pytest.approx(expected, rel=1e-12)


def test_skewness_of_draws_is_that_of_their_means():
    values = skewed(3, 60)
    assert column((values.tolist(), 60)).summary(3).skewness == pytest.approx(stats.skew(values.mean(0)), rel=1e-12)


def test_skewness_of_unequal_groups_is_that_of_their_shares_of_the_mean():
    y, n = np.array([1.0, 5.0, 2.0, 8.0]), np.array([10, 10, 20, 3])
    d = n * (y - (n * y).sum() / n.sum())
    expected = 2 * (d**3).sum() / (d**2).sum() ** 1.5
    made = column(*(([[value]], images) for value, images in zip(y, n.tolist(), strict=True)))
    assert made.summary(1).skewness == pytest.approx(expected, rel=1e-12)


def test_skewness_of_values_far_from_zero_or_of_any_size_does_not_cancel():
    values = torch.tensor([[0.0, 1.0, 2.0, 7.0, 9.0, 30.0]], dtype=torch.float64)
    expected = stats.skew(values[0])
    for scale, shift in ((1.0, 1e9), (1e-150, 0.0), (1e150, 0.0)):
        made = column(((values * scale + shift).tolist(), 6))
        assert made.summary(1).skewness == pytest.approx(expected, rel=1e-6)


def test_skewness_needs_three_values_that_differ():
    assert math.isnan(column(([[1.0, 2.0]], 2)).summary(1).skewness)
    assert column(([[4.0, 4.0, 4.0]], 3)).summary(1).skewness == 0


# ---- finite populations


def test_all_of_a_population_has_no_error_but_the_draws():
    exact = column((skewed(1, 50).tolist(), 50)).summary(1, population=50)
    assert (exact.stderr, exact.skewness) == (0, 0)
    drawn = column((skewed(3, 50).tolist(), 50)).summary(3, population=50)
    assert drawn.stderr == pytest.approx(drawn.stderr_draws)
    assert drawn.skewness == pytest.approx(0, abs=1e-12)


def test_a_large_population_is_no_population():
    made = column((skewed(2, 50).tolist(), 50))
    one, many = made.summary(2), made.summary(2, population=10**12)
    assert many.stderr == pytest.approx(one.stderr, rel=1e-9)
    # the skewness that counts is that of the share of the images
    assert many.skewness == pytest.approx(one.skewness * (1 - one.stderr_draws**2 / one.stderr**2), rel=1e-9)


def test_finite_population_is_the_formula():
    y = skewed(4, 30)
    n, population, draws = 30, 90, 4
    within = y.var(0).mean()
    between = y.mean(0).var() - within / draws
    expected = (1 - n / population) * between / n + within / (draws * n)
    assert column((y.tolist(), 30)).summary(4, population=90).stderr ** 2 == pytest.approx(float(expected), rel=1e-12)
    assert finite_population(4.0, 1.0, 0.25) == 0.75 * 4 + 0.25 * 1


@pytest.mark.parametrize(("size", "draws"), [(1, 1), (1, 2), (1, 4), (10, 2), (10, 4)])
def test_samples_without_replacement_are_covered(size: int, draws: int):
    """n = 300 of N = 500, and all of them, 1,000 times each; a group is an image, or a batch with noise of its own."""
    rng = np.random.default_rng(0)
    images = rng.gamma(1.0, size=500)
    hits, uncorrected = {300: 0, 500: 0}, 0
    for n in hits:
        for _ in range(1000):
            groups = rng.permutation(images)[:n].reshape(-1, size).mean(1)
            noise = rng.uniform(-1, 1, (draws, len(groups))) * (draws > 1) / size**0.5
            made = column(((groups * (1 + noise)).tolist(), n))
            found = made.summary(draws, population=500)
            lower, upper = hall_interval(found.mean, found.stderr, found.skewness, found.groups)
            hits[n] += lower - 1e-9 <= images.mean() <= upper + 1e-9
            if n == 300:
                uncorrected += abs(found.mean - images.mean()) <= 1.96 * made.summary(draws).stderr
    assert 930 <= hits[300] <= 970 < uncorrected
    assert hits[500] == 1000 if draws == 1 else 930 <= hits[500] <= 970


def test_populations_that_cannot_be_are_refused():
    check_population(None, drawn=True, draws=1, images=10, joint="anything")
    check_population(10, images=10)
    with pytest.raises(ValueError, match=r"population must be at least the number of images measured, 11; got 10\."):
        check_population(10, images=11)
    with pytest.raises(ValueError, match=r"population must be at least .* 1; got 0\."):
        check_population(0)
    with pytest.raises(ValueError, match=r"draws must be at least 2 with population=10, .* got 1\. Use draws=2, or"):
        check_population(10, drawn=True, draws=1)
    check_population(10, drawn=True, draws=2, projections=4)
    with pytest.raises(ValueError, match=r"projections must be None with population=10 .* got 4\. Or use estimator="):
        check_population(10, projections=4)
    with pytest.raises(ValueError, match=r"population must be None where .* one joint model \(they do\); got 10\."):
        check_population(10, joint="they do")
    with pytest.raises(ValueError, match="population must be at least the number of images measured, 50"):
        column((skewed(1, 50).tolist(), 50)).summary(1, population=49)


# ---- stopping


def two_layers(small: list[float], large: list[float]) -> Tally:
    tally = Tally(["small", "large"], joint=False)
    values = {"small": torch.tensor([small]).double(), "large": torch.tensor([large]).double()}
    tally.add(values, len(small))
    return tally


def test_stopping_asks_for_the_total_or_also_for_layers_above_a_share():
    tally = two_layers([0.0, 0.0, 0.0, 8.0], [90.0, 110.0, 95.0, 105.0])  # 2 +- 2 and 100 +- 4.6; the total 102 +- 4.8
    assert tally.total.summary(1).stderr == pytest.approx(np.std([90, 110, 95, 113], ddof=1) / 2)
    assert tally.reached(0.06, 1)
    assert not tally.reached(0.04, 1)
    assert tally.reached(0.06, 1, layers_above=0.02)  # small holds 1.96 %
    assert not tally.reached(0.06, 1, layers_above=0.019)
    assert not tally.reached(0.04, 1, layers_above=0.5)  # the total is asked for whatever the layers are


def test_stopping_with_a_finite_population_stops_sooner():
    tally = two_layers([0.0, 0.0, 0.0, 8.0], [90.0, 110.0, 95.0, 105.0])
    assert tally.reached(0.04, 1, population=5)
    assert tally.reached(1e-9, 1, population=4, layers_above=0.0)


def test_one_group_never_stops():
    assert not two_layers([1.0], [1.0]).reached(0.99, 1)


def test_a_trace_of_zero_is_known():
    assert two_layers([0.0, 0.0], [0.0, 0.0]).reached(0.1, 1, layers_above=0.0)


# ---- the note


def summary(mean: float, skewness: float, groups: int = 100) -> Summary:
    return Summary(mean, mean / 10, math.nan, skewness, groups)


def test_the_note_names_what_is_skewed_and_the_interval_to_take():
    assert skewness_note([summary(1.0, 1.9)], summary(1.0, 1.9)) is None
    of_total = skewness_note([summary(5.0, 1.0), summary(5.0, 1.0)], summary(10.0, 2.1))
    assert of_total is not None
    assert "carry the total (skewness 2.1 over 100)" in of_total
    assert "result.interval()" in of_total
    of_layers = skewness_note([summary(5.0, 3.0), summary(5.0, 1.0)], summary(10.0, 1.5))
    assert of_layers is not None
    assert "carry 1 of the 2 layers with over 1% of the trace (skewness 3 over 100)" in of_layers
    both = skewness_note([summary(5.0, 3.0), summary(5.0, 1.0)], summary(10.0, 2.1))
    assert both is not None
    assert "carry the total and 1 of the 2 layers with over 1% of the trace (skewness 3 over 100)" in both


def test_the_note_leaves_layers_out_that_hold_nothing_and_what_has_no_skewness():
    assert skewness_note([summary(0.09, 9.0), summary(9.9, 1.0)], summary(9.99, 1.0)) is None
    assert skewness_note([summary(1.0, math.nan, 2)], summary(1.0, math.nan, 2)) is None
