import json

import pytest
from random_sets import random_set

from fisherkit.conditions import (
    Blur,
    Conditions,
    Flip,
    LrRestart,
    LrScale,
    Noise,
    ShrinkPerturb,
    Window,
    Windowed,
)


def test_what_holds_in_an_epoch() -> None:
    conditions = Conditions.parse(
        deficits=["blur(8):0-40", "flip:39-"],
        weight_decay=["5e-4:0-40", "1e-3:40-"],
        augment=["crop+flip:10-"],
        fraction=["0.5:0-350"],
        events=["lr_restart:40", "shrink_perturb(0.4,0.1):350", "lr_scale(0.1):40"],
    )
    assert conditions.at(0).deficits == (Blur(8),)
    assert conditions.at(39).deficits == (Blur(8), Flip())
    assert conditions.at(40).deficits == (Flip(),)
    assert [conditions.at(epoch).weight_decay for epoch in (39, 40)] == [5e-4, 1e-3]
    assert [conditions.at(epoch).augment for epoch in (9, 10)] == [(), ("crop", "flip")]
    assert [conditions.at(epoch).fraction for epoch in (349, 350)] == [0.5, 1.0]
    assert conditions.at(40).events == (LrRestart(40), LrScale(40, 0.1))
    assert conditions.at(350).events == (ShrinkPerturb(350),)


def test_without_conditions_nothing_is_done() -> None:
    assert Conditions().at(7).record() == {
        "epoch": 7,
        "deficits": [],
        "weight_decay": 0.0,
        "augment": [],
        "fraction": 1.0,
        "events": [],
    }


def test_augmentation_rests_under_noise() -> None:
    conditions = Conditions.parse(deficits=["noise:2-4", "blur:0-3"], augment=["crop+flip"])
    assert [bool(conditions.at(epoch).augment) for epoch in range(6)] == [True, True, False, False, True, True]


def test_record_is_json_and_names_everything() -> None:
    conditions = Conditions.parse(
        deficits=["blur:0-40", "my:rotate(90):0-"],
        weight_decay=["5e-4"],
        augment=["crop"],
        events=["lr_scale(0.5):3"],
    )
    record = conditions.at(3).record()
    assert json.loads(json.dumps(record)) == record
    assert record == {
        "epoch": 3,
        "deficits": ["blur(4)", "my:rotate(90)"],
        "weight_decay": 5e-4,
        "augment": ["crop"],
        "fraction": 1.0,
        "events": ["lr_scale(0.5)"],
    }


def test_deficits_of_a_run_are_distinct_and_in_order() -> None:
    conditions = Conditions.parse(deficits=["noise:9-10", "blur:0-2", "blur(4):4-6", "blur(8):6-8"])
    assert conditions.all_deficits() == (Noise(), Blur(4), Blur(8))


def test_deficit_windows_for_plots() -> None:
    windows = Conditions.parse(deficits=["blur:0-40", "noise:20-"]).deficit_windows()
    assert windows == [
        {"name": "blur", "text": "blur(4)", "start": 0, "stop": 40},
        {"name": "noise", "text": "noise", "start": 20, "stop": None},
    ]
    assert json.loads(json.dumps(windows)) == windows


OVERLAPS = {
    "deficits of one name": ("deficits", ["blur:0-40", "blur(8):20-60"], "epochs 20-40"),
    "the same deficit twice": ("deficits", ["flip", "flip:3-"], "epochs 3-"),
    "a custom deficit": ("deficits", ["my:rotate(1):0-2", "my:rotate(2):1-3"], "epochs 1-2"),
    "weight decay": ("weight_decay", ["5e-4", "1e-3:100-"], "epochs 100-"),
    "augment": ("augment", ["crop:0-5", "none:4-"], "epochs 4-5"),
    "fraction": ("fraction", ["0.5:0-9", "0.25:8-9"], "epochs 8-9"),
    "events of one name": ("events", ["lr_scale(0.1):3", "lr_scale(0.5):3"], "epochs 3-4"),
}


@pytest.mark.parametrize("case", OVERLAPS)
def test_overlap_of_one_kind_shows_both_texts(case: str) -> None:
    field, texts, shared = OVERLAPS[case]
    with pytest.raises(ValueError, match="must be given at most once for an epoch") as caught:
        Conditions.parse(**{field: texts})
    assert f"got {texts[0]!r} and {texts[1]!r}, which both hold in the {shared}." in str(caught.value)


def test_overlap_is_refused_without_texts_too() -> None:
    overlapping = (Windowed(Blur(4), Window(0, 4)), Windowed(Blur(8), Window(3)))
    with pytest.raises(ValueError, match=r"blur must .* got 'blur\(4\):0-4' and 'blur\(8\):3-'"):
        Conditions(deficits=overlapping)


@pytest.mark.parametrize(
    ("field", "texts"),
    [
        ("deficits", ["blur:0-40", "blur(8):40-60"]),
        ("deficits", ["blur:0-40", "flip:0-40"]),
        ("deficits", ["my:rotate:0-40", "my:crop:0-40"]),
        ("weight_decay", ["1e-3:5-9", "5e-4:0-5"]),
        ("events", ["lr_restart:3", "lr_scale(0.1):3", "lr_restart:4"]),
    ],
)
def test_neighbours_and_different_kinds_compose(field: str, texts: list[str]) -> None:
    assert len(getattr(Conditions.parse(**{field: texts}), field)) == len(texts)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("weight_decay", -1.0, "weight decay must be finite and >= 0"),
        ("fraction", 0.0, "fraction must be above 0"),
        ("augment", ("cutout",), "augmentation must be crop, flip"),
    ],
)
def test_values_are_checked_without_texts_too(field: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Conditions(**{field: (Windowed(value),)})


def test_check_finds_a_deficit_that_cannot_be_applied_before_its_window() -> None:
    conditions = Conditions.parse(deficits=["blur:0-40", "grayscale:900-"])
    conditions.check(random_set(channels=3))
    with pytest.raises(ValueError, match="grayscale must have images of 3 channels; got 1"):
        conditions.check(random_set(channels=1))
