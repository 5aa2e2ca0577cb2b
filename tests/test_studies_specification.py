"""A run as a value: defaults, identity, lengths, errors."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from runs import small

from fisherkit.studies import Cadence, RunSpecification, specify


def test_what_is_left_out_is_the_papers_default():
    made = specify(model="allcnn", epochs=1)
    assert (made.lr, made.lr_schedule, made.momentum) == (0.05, "exponential(0.97)", 0.9)
    assert made.weight_decay == ("0.001",)
    assert made.augment == ("crop+flip",)
    assert specify(model="resnet18", optimizer="adam", epochs=1).lr == 1e-3
    assert specify(model="allcnn", epochs=1, lr=0.2, augment=("none",)).lr == 0.2


def test_clean_epochs_count_from_the_end_of_the_last_deficit():
    assert specify(deficit=("blur:0-40", "noise:10-50"), clean_epochs=160).epochs == 210
    assert specify(clean_epochs=7).epochs == 7
    with pytest.raises(ValueError, match="clean_epochs needs deficits that end"):
        specify(deficit=("blur",), clean_epochs=7)
    with pytest.raises(ValueError, match="must not both be given"):
        specify(epochs=3, clean_epochs=7)
    with pytest.raises(ValueError, match=r"epochs \(or clean_epochs"):
        specify()


def test_the_identity_is_that_of_the_numbers():
    assert small().identity == small(data_dir="/elsewhere").identity
    assert small().identity != small(seed=1).identity
    assert RunSpecification.model_validate_json(small().model_dump_json()) == small()
    assert small().name.startswith("allcnn-fashion-mini-blur-0-1-noise-2-3-")


def test_differing_options_are_shown_as_one_would_type_them():
    lines = small().differing_options(small(seed=3, deficit=("flip:0-1",)))
    assert lines == ["--deficit flip:0-1 (this command: blur:0-1 noise:2-3)", "--seed 3 (this command: 0)"]


ERRORS = {
    "probe": (dict(probe=("nothing",)), "probe must be one of train, test, deficit; got 'nothing'"),
    "probe_deficit": (dict(probe=("deficit",), deficit=()), "probe 'deficit' needs a deficit"),
    "late_window": (dict(deficit=("blur:7-9",)), "must start before the run ends after 3 epochs"),
    "draws": (dict(estimator="exact", draws=2), "draws must be 1 for estimator='exact'"),
    "window": (dict(deficit=("blur:40-0",)), "blur:40-0"),
    "unknown": (dict(colour="red"), "colour"),
    "lr": (dict(lr=-1.0), r"lr must be a number above 0 and at most 1e\+30"),
    "schedule": (dict(lr_schedule="linear"), "lr_schedule"),
    "count": (dict(train_images=0), "greater than or equal to 1"),
    "every": (
        dict(every="often"),
        r"every must be a number of epochs \(1\), of steps \(50steps\), or log; got 'often'",
    ),
}


@pytest.mark.parametrize(("changes", "message"), ERRORS.values(), ids=ERRORS)
def test_wrong_choices(changes, message: str):
    with pytest.raises(ValueError, match=message):
        small(**changes)


def due(text: str, steps: int, per_epoch: int) -> list[int]:
    cadence = Cadence.parse(text)
    return [
        step
        for step in range(1, steps + 1)
        if cadence.due(step=step, finished_epochs=step // per_epoch if step % per_epoch == 0 else None)
    ]


def test_cadences():
    assert due("1", 12, 4) == [4, 8, 12]
    assert due("2", 12, 4) == [8]
    assert due("5steps", 12, 4) == [5, 10]
    assert due("log", 40, 4) == [1, 2, 3, 4, 5, 6, 8, 11, 14, 18, 23, 30, 39]


@given(st.integers(1, 10**4))
def test_log_leaves_no_gap_of_more_than_a_third(step: int):
    cadence = Cadence.parse("log")
    assert any(cadence.due(step=s, finished_epochs=None) for s in range(step, step + step // 3 + 2))
