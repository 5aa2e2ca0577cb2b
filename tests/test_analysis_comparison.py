"""The end of a run, an arm against its control, arms that do not fit."""

import numpy as np
import pytest
from analysis_cases import NAN, arm, ending, run

from fisherkit.analysis import Arm, final_value, mean_interval, ratio_to_control, undertrained


def test_the_end_is_made_of_the_last_epochs():
    found = ending([0.1, 0.2, 0.3, 0.4, 0.9])
    assert final_value(found, "test_accuracy") == 0.9
    assert final_value(found, "test_accuracy", last=3) == pytest.approx((0.3 + 0.4 + 0.9) / 3)
    assert final_value(found, "test_accuracy", last=3, statistic="median") == 0.4
    assert final_value(found, "test_accuracy", last=99) == pytest.approx(0.38)


def test_rows_within_an_epoch_and_gaps_count_by_epoch():
    series = {"test_accuracy": np.array([0.1, 0.2, NAN, 0.4, NAN])}
    found = run(np.ones(5), epochs=[1, 1.5, 2, 2.5, 3], series=series)
    assert final_value(found, "test_accuracy", last=1) == 0.4
    assert final_value(found, "test_accuracy", last=1.1) == pytest.approx(0.3)
    assert np.isnan(final_value(run(np.ones(2), series={"a": np.full(2, NAN)}), "a"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "x"}, "name must be one of epoch, step, test_accuracy, train_accuracy; got 'x'"),
        ({"last": 0}, "last must be a number of epochs above 0; got 0"),
        ({"statistic": "mode"}, "statistic must be mean or median; got 'mode'"),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        final_value(ending([0.1]), **{"name": "test_accuracy", **options})


def three(heights, **more):
    runs = [run(h * np.array([1.0, 2.0, 3.0]), **more) for h in heights]
    return Arm("x", "g", 1.0, False, tuple(range(len(runs))), tuple(runs))


def test_the_ratio_is_a_geometric_mean_over_paired_seeds():
    found = ratio_to_control(three([2.0, 8.0, 4.0]), three([1.0, 2.0, 1.0]))
    np.testing.assert_array_equal(found.epoch, [1, 2, 3])
    np.testing.assert_allclose(found.ratio, 32 ** (1 / 3))
    logs = mean_interval(list(np.log([2.0, 4.0, 4.0])))
    np.testing.assert_allclose(found.low, np.exp(logs.low))
    np.testing.assert_allclose(found.high, np.exp(logs.high))
    assert found.n == 3


def test_epochs_and_seeds_that_both_have_count():
    ours = Arm("x", "g", 1.0, False, (1, 5), (run([2.0, 4.0, 6.0]), run([9.0])))
    theirs = Arm("c", "c", 0.0, True, (0, 1), (run([7.0]), run([1.0, NAN, 3.0, 4.0])))
    found = ratio_to_control(ours, theirs)
    np.testing.assert_array_equal(found.epoch, [1, 3])
    np.testing.assert_allclose(found.ratio, [2, 2])
    assert found.n == 1
    assert np.isnan(found.low).all()
    with pytest.raises(ValueError, match=r"control must have a seed in common with 'x'; got \[0\]"):
        ratio_to_control(ours, Arm("c", "c", 0.0, True, (0,), (run([7.0]),)))


def test_the_ratio_of_a_layer():
    a, b = run([[2.0, 6.0]], layers=("p", "q")), run([[1.0, 2.0]], layers=("p", "q"))
    ours, theirs = Arm("x", "g", 1.0, False, (0,), (a,)), Arm("c", "c", 0.0, True, (0,), (b,))
    assert ratio_to_control(ours, theirs, layer="q").ratio[0] == pytest.approx(3)
    assert ratio_to_control(ours, theirs).ratio[0] == pytest.approx(8 / 3)


def test_undertrained_arms():
    assert undertrained(arm("x", 1.0, [0.5, 0.5], train=0.94))
    assert not undertrained(arm("x", 1.0, [0.5, 0.5], train=0.96))
    assert not undertrained(three([1.0]))  # not known
    assert undertrained(arm("x", 1.0, [0.5], train=0.5), least=0.6)


def test_an_arm_has_a_seed_for_each_run():
    with pytest.raises(ValueError, match=r"seeds must be different, one for each trajectory; got \(0, 0\) for 2"):
        Arm("x", "g", 1.0, False, (0, 0), (run([1.0]), run([1.0])))
