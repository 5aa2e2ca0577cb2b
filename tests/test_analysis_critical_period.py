"""Losses against seed noise: the test behind it, its false alarms, every verdict."""

import numpy as np
import pytest
from analysis_cases import arm
from scipy import stats

from fisherkit.analysis import critical_period
from fisherkit.analysis.many_to_one import critical_ratio, exceeds, layout, losses

NAN = float("nan")


def test_losses_without_gaps_are_differences_of_means():
    table = np.random.default_rng(0).normal(size=(3, 5))
    found, plan = losses(table), layout(np.isfinite(table))
    means = table.mean(axis=0)
    np.testing.assert_allclose(found.loss, means[0] - means[1:])
    residual = table - means - table.mean(axis=1, keepdims=True) + table.mean()
    assert plan.freedom == 4 * 2
    assert found.noise == pytest.approx(np.sqrt(np.square(residual).sum() / 8))
    np.testing.assert_allclose(found.stderr, found.noise * np.sqrt(2 / 3))


def test_one_arm_is_the_paired_t_test():
    table = np.random.default_rng(1).normal(size=(4, 2))
    found, expected = losses(table), stats.ttest_rel(table[:, 0], table[:, 1])
    assert layout(np.isfinite(table)).freedom == 3
    assert found.loss[0] / found.stderr[0] == pytest.approx(expected.statistic)
    assert critical_ratio(1, 3, 0.05) == pytest.approx(stats.t.ppf(0.95, 3), rel=2e-3)


def test_gaps_are_left_out_and_seeds_do_not_count():
    rng = np.random.default_rng(2)
    table = rng.normal(size=(4, 3))
    table[1, 2] = NAN
    found = losses(table)
    shifted = losses(table + np.array([[10.0], [-5.0], [3.0], [0.0]]))
    np.testing.assert_allclose(found.loss, shifted.loss)
    assert found.noise == pytest.approx(shifted.noise)
    assert found.stderr[1] > found.stderr[0]


@pytest.mark.parametrize(("arms", "freedom"), [(2, 6), (8, 16), (5, 40)])
def test_the_critical_ratio_is_dunnetts(arms, freedom):
    """Drawn: 200,000 studies."""
    rng = np.random.default_rng(3)
    z = rng.normal(size=(200_000, arms + 1))
    scale = np.sqrt(rng.chisquare(freedom, 200_000) / freedom)
    largest = ((z[:, :1] - z[:, 1:]) / np.sqrt(2)).max(axis=1) / scale
    assert np.mean(largest > critical_ratio(arms, freedom, 0.05)) == pytest.approx(0.05, abs=4 * 0.0005)


def test_steps_find_more_than_one_hurdle_for_all():
    loss, stderr = np.array([5.0, 2.3, 0.1]), np.ones(3)
    assert critical_ratio(3, 20, 0.05) > 2.15 > critical_ratio(2, 20, 0.05) > critical_ratio(1, 20, 0.05)
    assert exceeds(np.array([5.0, 2.1, 0.1]), stderr, 20, 0.05).tolist() == [True, True, False]
    assert exceeds(np.array([2.1, 0.1, 0.1]), stderr, 20, 0.05).tolist() == [False, False, False]
    assert exceeds(-loss, stderr, 20, 0.05).tolist() == [False, False, False]


@pytest.mark.parametrize(("seeds", "arms"), [(3, 8), (2, 8), (5, 4)])
def test_false_alarms_are_as_many_as_asked_for(seeds, arms):
    """No arm loses anything: in 1 of 20 studies one is said to."""
    rng, studies = np.random.default_rng(4), 1500
    plan = layout(np.ones((seeds, arms + 1), bool))
    alarms = 0
    for _ in range(studies):
        table = rng.normal(size=(seeds, arms + 1)) + 3 * rng.normal(size=(seeds, 1))
        found = plan.losses(table.ravel())
        alarms += exceeds(found.loss, found.stderr, plan.freedom, 0.05).any()
    assert alarms / studies == pytest.approx(0.05, abs=4 * np.sqrt(0.05 * 0.95 / studies))


def study(losses_, *, base=0.8, noise=0.004, seeds=3, first=2.0, seed=0):
    """A control and arms at 2, 4, ... that lose so much, with seed noise."""
    rng = np.random.default_rng(seed)
    level = 0.01 * rng.normal(size=seeds)

    def made(label, value, loss, **more):
        return arm(label, value, list(base - loss + level + noise * rng.normal(size=seeds)), **more)

    control = made("control", 0.0, 0.0, control=True)
    return [made(f"until {first + 2 * k:g}", first + 2 * k, loss) for k, loss in enumerate(losses_)], control


def test_removal_ends_at_the_first_arm_that_loses():
    found = critical_period(*study([0, 0, 0.05, 0.06, 0.08]))
    assert (found.verdict, found.end) == ("ends", 6)
    assert found.low <= 6 <= found.high
    assert found.noise == pytest.approx(0.004, rel=0.5)
    assert [each.exceeds for each in found.arms] == [False, False, True, True, True]
    assert found.arms[4].loss == pytest.approx(0.08, abs=0.015)
    assert found.arms[0].seeds == 3


def test_window_ends_at_the_last_onset_that_loses():
    found = critical_period(*study([0.06, 0.08, 0.05, 0, 0]), study="window")
    assert (found.verdict, found.end) == ("ends", 6)


def test_a_small_loss_widens_the_bounds():
    arms, control = study([0, 0.004, 0.01, 0.014, 0.05])
    found = critical_period(arms, control)
    assert found.low < found.high
    assert critical_period(arms, control) == found  # the same resamples


@pytest.mark.parametrize(
    ("lost", "kind", "verdict"),
    [
        ([0, 0, 0], "removal", "no arm loses"),
        ([0.05, 0.06, 0.07], "removal", "all arms lose"),
        ([0, 0.06, 0], "removal", "ends, though not all longer deficits lose"),
        ([0, 0.06, 0], "window", "ends, though not all earlier deficits lose"),
        ([0.05, 0.06, 0.07], "window", "all arms lose"),
    ],
)
def test_verdicts(lost, kind, verdict):
    found = critical_period(*study(lost), study=kind)
    assert found.verdict == verdict
    assert np.isfinite(found.end) == verdict.startswith("ends")
    assert np.isfinite(found.noise)


def test_a_gain_is_no_loss():
    assert critical_period(*study([-0.05, -0.06])).verdict == "no arm loses"


STOPPED = {
    "too few seeds": ([0.7], [0.8]),
    "the control explodes": ([0.7, 0.7], [None, None]),
    "the control has no run": ([0.7, 0.7], []),
    "every arm explodes, or none has a seed of the control": ([None, None], [0.8, 0.81]),
    "no noise over seeds to compare with": ([0.7, 0.72], [0.8, 0.82]),
}


@pytest.mark.parametrize(("verdict", "runs"), STOPPED.items(), ids=STOPPED)
def test_what_cannot_be_compared_has_a_verdict_and_no_number(verdict, runs):
    ours, theirs = runs
    found = critical_period([arm("x", 4.0, ours)], arm("c", 0.0, theirs, control=True))
    assert found.verdict == verdict
    assert np.isnan([found.end, found.low, found.high, found.noise]).all()


def test_exploded_runs_do_not_count_and_arms_without_any_are_named():
    arms, control = study([0, 0, 0.06])
    gone = arm("until 20", 20.0, [None, None, None])
    found = critical_period([*arms, gone], control)
    assert found.left_out == ("until 20",)
    assert [each.label for each in found.arms] == ["until 2", "until 4", "until 6"]
    half = arm("until 8", 8.0, [0.7, None, 0.7])
    assert critical_period([*arms, half], control).arms[3].seeds == 2


def test_the_order_of_the_arms_does_not_count():
    arms, control = study([0, 0, 0.05, 0.06])
    assert critical_period(arms[::-1], control) == critical_period(arms, control)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"arms": []}, "arms must be at least one with a place on the axis; got 0 without"),
        ({"study": "x"}, "study must be one of removal, window; got 'x'"),
        ({"name": "x"}, "name must be one of .*; got 'x'"),
    ],
)
def test_wrong_arguments(options, message):
    arms, control = study([0])
    options = {"arms": arms, "control": control, **options}
    with pytest.raises(ValueError, match=message):
        critical_period(options.pop("arms"), options.pop("control"), **options)
