"""Phases: known curves, every verdict, and how often noise is taken for memory."""

import numpy as np
import pytest
from analysis_cases import NAN, pieces, run
from hypothesis import given, settings
from hypothesis import strategies as st

from fisherkit.analysis import Arm, arm_phases, phases
from fisherkit.analysis.phases import FEWEST, learns

EPOCHS = np.arange(1.0, 31.0)
CORNERS = ((1, 0.0), (8, 1.75), (12, 1.75), (22, -0.25), (30, -0.25))  # rise, plateau, fall, plateau


def numbers(found):
    return [found.peak_epoch, found.peak, found.forgotten, found.rise_half_time, found.decay_half_time]


def test_a_known_curve():
    found = phases(run(pieces(EPOCHS, (1, 0.0), (9, 2.0), (29, -1.0), (30, -1.0))))
    assert found.verdict == "memorizes, then forgets"
    assert found.peak_epoch == pytest.approx(9)
    assert found.peak == pytest.approx(np.exp(2), rel=1e-4)
    assert found.forgotten == pytest.approx(1 - np.exp(-3), rel=1e-4)
    assert found.rise_half_time == pytest.approx(np.log(2) / 0.25, rel=1e-3)
    assert found.decay_half_time == pytest.approx(np.log(2) / 0.15, rel=1e-3)
    assert found.memorization == (1.0, 9.0)
    assert found.forgetting == (9.0, 29.0)
    assert found.rows == 30


def test_plateaus_belong_to_no_phase():
    rng = np.random.default_rng(0)
    noise = np.exp(0.01 * rng.normal(size=30))
    found = phases(run(pieces(EPOCHS, *CORNERS) * noise))
    assert found.memorization == pytest.approx((1, 8), abs=1)
    assert found.forgetting == pytest.approx((12, 22), abs=1)
    assert 8 <= found.peak_epoch <= 12
    assert found.forgotten == pytest.approx(1 - np.exp(-2), abs=0.02)
    assert found.decay_half_time == pytest.approx(12 + np.log(2) / 0.2 - found.peak_epoch, abs=0.3)


def test_epochs_need_not_be_even():
    epochs = np.array([0.25, 0.5, 1, 2, 3, 4, 6, 8, 10, 15, 20, 30, 40])
    found = phases(run(pieces(epochs, (0.25, 0.0), (4, 2.0), (40, 0.2)), epochs=epochs))
    assert found.peak_epoch == pytest.approx(4)
    assert found.decay_half_time == pytest.approx(np.log(2) / 0.05, rel=1e-3)


@settings(max_examples=20, deadline=None)
@given(st.floats(1e-12, 1e12))
def test_the_unit_does_not_count(scale):
    values = pieces(EPOCHS, *CORNERS) * (1 + 0.01 * np.sin(7 * EPOCHS))
    a, b = phases(run(values)), phases(run(scale * values))
    assert a.verdict == b.verdict
    np.testing.assert_allclose(numbers(a)[2:], numbers(b)[2:], rtol=1e-6)
    assert b.peak == pytest.approx(scale * a.peak, rel=1e-6)


VERDICTS = {
    "never forgets": (np.linspace(1, 5, 20), {}),
    "forgets from the first row on": (np.exp(-0.2 * np.arange(20)), {}),
    "neither rises nor falls": (np.full(20, 3.0), {}),
    "zero throughout": (np.zeros(20), {}),
    "not measured": (np.full(20, NAN), {}),
    "too few rows": ([1.0, 5.0, 9.0, 2.0], {}),
    "explodes": (np.linspace(1, 5, 20), {"attributes": {"exploded": "loss inf at step 9"}}),
    "never learns": (np.linspace(1, 5, 20), {"series": {"train_loss": np.linspace(2.31, 2.3, 20)}}),
    "too noisy to tell": (pieces(np.arange(12), (0, 0), (6, 0.5), (11, 0)), {"stderr": 0.4}),
}


@pytest.mark.parametrize(("verdict", "case"), VERDICTS.items(), ids=VERDICTS)
def test_a_network_without_phases_gets_a_verdict_and_no_number(verdict, case):
    values, options = case
    found = phases(run(values, **options))
    assert found.verdict == verdict
    if verdict != "forgets from the first row on":
        assert np.isnan([*numbers(found), found.forgotten_stderr, *found.forgetting]).all()


def test_infinite_rows_are_not_taken_for_a_peak():
    values = np.append(np.exp(np.arange(10.0)), [np.inf, np.inf])
    assert phases(run(values)).verdict == "explodes"


def test_a_rise_without_a_fall_keeps_its_phase():
    found = phases(run(pieces(EPOCHS, (1, 0.0), (10, 2.0), (30, 2.0))))
    assert found.verdict == "never forgets"
    assert found.memorization == (1.0, 10.0)
    assert np.isnan(found.rise_half_time)  # there is no peak to count from


def test_the_fall_alone_is_told_as_such():
    found = phases(run(np.exp(-0.2 * np.arange(20))))
    assert found.memorization == pytest.approx((NAN, NAN), nan_ok=True)
    assert np.isnan(found.rise_half_time)
    assert found.decay_half_time == pytest.approx(np.log(2) / 0.2, rel=1e-3)


def test_the_row_before_training_does_not_count():
    values = np.append([1e6], pieces(EPOCHS, *CORNERS))
    found = phases(run(values, epochs=np.append([0.0], EPOCHS)))
    assert found.verdict == "memorizes, then forgets"
    assert found.rows == 30


def test_layers_and_their_sum():
    early, late = pieces(EPOCHS, (1, 0), (5, 2), (30, 0)), pieces(EPOCHS, (1, 0), (15, 3), (30, 1))
    both = run(np.stack([early, late], axis=1), layers=("first", "second"))
    assert phases(both, layer="first").peak_epoch == 5
    assert phases(both, layer="second").peak_epoch == 15
    assert phases(both).peak == pytest.approx((early + late).max(), rel=0.02)
    with pytest.raises(ValueError, match="layer must be one of first, second; got 'x'"):
        phases(both, layer="x")
    with pytest.raises(ValueError, match="variable must be one of fisher_true; got 'x'"):
        phases(both, "x")


def test_the_error_of_what_is_forgotten_is_that_of_the_two_rows():
    values = pieces(EPOCHS, (1, 0.0), (9, 2.0), (30, 0.0))
    found = phases(run(values, stderr=0.05 * values[:, None]))
    left = 1 - found.forgotten
    assert found.forgotten_stderr == pytest.approx(left * 0.05 * np.sqrt(2), rel=0.4)
    assert found.forgotten_stderr > left * 0.05 * np.sqrt(2)


def simulated(mean, *, noise, stderr, studies):
    rng = np.random.default_rng(3)
    values = np.exp(mean + noise * rng.normal(size=(studies, len(mean))))
    return [phases(run(each, stderr=stderr * each[:, None])) for each in values]


@pytest.mark.parametrize("rows", [8, 20, 60])
def test_noise_is_seldom_called_forgetting(rows):
    found = simulated(np.zeros(rows), noise=0.1, stderr=0.03, studies=300)
    assert np.mean(["forgets" in each.verdict and "never" not in each.verdict for each in found]) <= 0.03
    risen = simulated(np.minimum(np.arange(rows) / rows * 4, 2.0), noise=0.1, stderr=0.03, studies=100)
    assert np.mean([each.verdict == "memorizes, then forgets" for each in risen]) <= 0.04


def test_a_fall_by_half_is_found_in_noise_and_without_bias():
    x = np.linspace(0, 1, 40)
    found = simulated(np.interp(x, [0, 0.3, 1], [0, 1.5, 1.5 - np.log(2)]), noise=0.1, stderr=0.03, studies=100)
    assert np.mean([each.verdict == "memorizes, then forgets" for each in found]) > 0.95
    assert np.nanmean([each.forgotten for each in found]) == pytest.approx(0.5, abs=0.02)
    assert np.nanmean([each.peak_epoch for each in found]) == pytest.approx(1 + 0.3 * 39, abs=1)


def test_whether_anything_was_learnt():
    def told(loss=None, accuracy=None):
        series = {"train_loss": loss, "train_accuracy": accuracy}
        return learns(run(np.ones(3), series={name: np.array(v) for name, v in series.items() if v is not None}))

    assert told()
    assert told(loss=[NAN, 2.3, 2.2])
    assert not told(loss=[NAN, 2.3, 2.29])
    assert not told(loss=[2.3, 2.29, 2.31], accuracy=[0.1, 0.11, 0.1])
    assert told(loss=[2.3, 2.29, 2.31], accuracy=[0.1, 0.2, 0.1])
    assert told(loss=[0.1, 0.1, 0.1], accuracy=[0.97, 0.97, 0.97])  # all in the first epoch


def test_an_arm_has_means_and_counts():
    peaks = (8.0, 9.0, 10.0)
    runs = [run(pieces(EPOCHS, (1, 0.0), (p, 2.0), (30, 0.0))) for p in peaks]
    flat = run(np.ones(30))
    found = arm_phases(Arm("x", "g", 1.0, False, (0, 1, 2, 3), (*runs, flat)))
    assert found.verdicts == {"memorizes, then forgets": 3, "neither rises nor falls": 1}
    assert found.verdict == "memorizes, then forgets (3 of 4); neither rises nor falls (1 of 4)"
    assert (found.peak_epoch.value, found.peak_epoch.n) == (pytest.approx(9), 3)
    assert found.peak_epoch.low == pytest.approx(9 - 4.3027 / np.sqrt(3), rel=1e-3)
    assert np.isnan(found.forgotten.low)  # all the same
    assert arm_phases(Arm("x", "g", 1.0, False, (), ())).verdict == ""


def test_the_fewest_rows_are_enough():
    assert "forgets" in phases(run(pieces(np.arange(FEWEST), (0, 0), (2, 3), (4, 0)))).verdict
