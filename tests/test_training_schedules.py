"""Learning rates: the papers' numbers, restarts and scales, and texts that are wrong."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fisherkit.conditions import LrRestart, LrScale
from fisherkit.training import SCHEDULES, learning_rate, parse_schedule


def rates(text: str, epochs: int, events: tuple[LrRestart | LrScale, ...] = (), base: float = 1.0) -> list[float]:
    schedule = parse_schedule(text)
    return [learning_rate(base, schedule, epoch=epoch, epochs=epochs, events=events) for epoch in range(epochs)]


@pytest.mark.parametrize(
    ("removal", "total"),
    [(0, 1.654), (40, 0.489), (100, 0.079), (140, 0.023)],
    ids=["t0=0", "t0=40", "t0=100", "t0=140"],
)
def test_the_papers_rate_summed_over_160_clean_epochs(removal: int, total: float) -> None:
    clean = rates("exponential(0.97)", removal + 160, base=0.05)[removal:]
    assert len(clean) == 160
    assert round(sum(clean), 3) == total


def test_a_restart_at_removal_gives_every_arm_the_same_clean_rates() -> None:
    arms = [rates("exponential(0.97)", t0 + 160, (LrRestart(t0),), base=0.05)[t0:] for t0 in (0, 40, 140)]
    assert arms[0] == arms[1] == arms[2]
    assert round(sum(arms[0]), 3) == 1.654


def test_each_schedule_by_hand() -> None:
    assert rates("constant", 4) == [1.0] * 4
    assert rates("exponential(0.5)", 4) == [1.0, 0.5, 0.25, 0.125]
    assert rates("step(0.1,2)", 5) == [1.0, 1.0, 0.1, 0.1, 0.1**2]
    expected = [1.0, (2 + math.sqrt(2)) / 4, 0.5, (2 - math.sqrt(2)) / 4]
    assert rates("cosine", 4) == pytest.approx(expected, abs=1e-15)


def test_restart_resets_the_clock_and_scale_multiplies_from_then_on() -> None:
    events = (LrRestart(3), LrScale(2, 10.0), LrScale(4, 0.5))
    assert rates("exponential(0.5)", 6, events) == [1.0, 0.5, 2.5, 10.0, 2.5, 1.25]


def test_cosine_after_a_restart_runs_over_the_epochs_that_are_left() -> None:
    assert rates("cosine", 10, (LrRestart(6),))[6:] == rates("cosine", 4)


def test_the_latest_restart_counts_whatever_the_order_of_the_events() -> None:
    events = (LrRestart(4), LrRestart(1))
    assert rates("exponential(0.5)", 6, events) == [1.0, 1.0, 0.5, 0.25, 1.0, 0.5]


@given(
    text=st.sampled_from(["constant", "cosine", "exponential(0.9)", "step(0.1,3)"]),
    epoch=st.integers(0, 20),
    later=st.integers(1, 20),
)
@settings(deadline=None, max_examples=50)
def test_events_of_the_future_change_no_rate_of_the_past(text: str, epoch: int, later: int) -> None:
    schedule = parse_schedule(text)
    events = (LrRestart(epoch + later), LrScale(epoch + later, 3.0))
    plain = learning_rate(0.1, schedule, epoch=epoch, epochs=50)
    assert learning_rate(0.1, schedule, epoch=epoch, epochs=50, events=events) == plain


@pytest.mark.parametrize("text", ["constant", "exponential(0.97)", "step(0.1,30)", "cosine"])
def test_a_schedule_writes_itself_as_it_is_read(text: str) -> None:
    assert str(parse_schedule(text)) == text
    assert parse_schedule(f" {text} ") == parse_schedule(text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("linear", "name must be one of constant, exponential, step, cosine; got 'linear'"),
        ("exponental(0.97)", "Did you mean 'exponential'"),
        ("exponential", "got no decay"),
        ("exponential(1.5)", "decay of exponential must be above 0 and at most 1; got 1.5"),
        ("exponential(0)", "decay of exponential must be above 0"),
        ("exponential(nan)", "decay of exponential must be a number; got 'nan'"),
        ("step(0.1)", "got no every"),
        ("step(0.1,0)", "every of step must be a whole number of epochs >= 1; got 0"),
        ("step(0.1,2.5)", "every of step must be a whole number; got '2.5'"),
        ("constant(3)", "arguments of constant must be none; got 1"),
        ("cosine:0-40", "no window; got ':0-40'"),
    ],
)
def test_a_wrong_schedule_says_what_is_wrong_and_lists_the_choices(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as caught:
        parse_schedule(text)
    assert repr(text) in str(caught.value)
    assert all(choice in str(caught.value) for choice in SCHEDULES)
