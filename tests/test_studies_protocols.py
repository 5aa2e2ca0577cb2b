"""Protocols with windows: removal, window, regularization; lengths that are scaled in time; seeds; errors."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from planned import asked, by_label, differing, group, only, rates

from fisherkit.studies.arms import PlannedArm, Study
from fisherkit.studies.protocols import StudyOptions, early_fisher, regularization, removal, warm_start, window
from fisherkit.studies.protocols.base import for_each_seed, merged, scaled, scaled_run, scaled_schedule
from fisherkit.training import parse_schedule

PROTOCOLS = {
    "removal": removal,
    "window": window,
    "regularization": regularization,
    "warm-start": warm_start,
    "early-fisher": early_fisher,
}


# --- removal


def test_removal_is_the_papers_sweep():
    study = removal(asked({"model": "allcnn"}))
    control, *others = study.arms
    assert (control.label, control.group, control.value, control.control) == ("control", "control", 0.0, True)
    assert (only(control).deficit, only(control).epochs) == ((), 160)
    for arm, t0 in zip(others, (20, 40, 60, 80, 100, 120, 140), strict=True):
        assert (arm.label, arm.group, arm.value, arm.control) == (f"blur until epoch {t0}", "blur", t0, False)
        assert (only(arm).deficit, only(arm).epochs) == ((f"blur:0-{t0}",), t0 + 160)
        assert differing(only(arm), only(control)) == {"deficit", "epochs"}
    run = only(control)
    assert (run.lr, run.lr_schedule, run.momentum, run.weight_decay) == (0.05, "exponential(0.97)", 0.9, ("0.001",))
    assert (run.augment, run.batch_size) == (("crop+flip",), 128)
    assert (study.protocol, study.axis) == ("removal", "deficit removed at epoch")


def test_removal_at_a_tenth_of_the_time():
    study = removal(asked(time_scale=0.1))
    assert [arm.value for arm in study.arms] == [0, 2, 4, 6, 8, 10, 12, 14]
    assert [only(arm).epochs for arm in study.arms] == [16, 18, 20, 22, 24, 26, 28, 30]
    assert by_label(study)["blur until epoch 4"].deficit == ("blur:0-4",)
    assert study.options["clean_epochs_run"] == 16


def test_learning_rates_of_the_clean_epochs_without_and_with_a_reset():
    """Summed over the 160 clean epochs, 0.05 x 0.97^t; the sums are computed from the closed form."""
    study = removal(asked({"model": "allcnn"}, arms=("40", "100", "140")), lr_arms=("not-reset", "reset"))
    sums = {arm.label: sum(rates(only(arm))[-160:]) for arm in study.arms}
    plain = ["control, lr not-reset", *(f"blur until epoch {t0}, lr not-reset" for t0 in (40, 100, 140))]
    assert [sums[label] for label in plain] == pytest.approx([1.654, 0.489, 0.079, 0.023], abs=5e-4)
    for label in ("control, lr reset", *(f"blur until epoch {t0}, lr reset" for t0 in (40, 100, 140))):
        assert sums[label] == pytest.approx(1.654, abs=5e-4)


def test_learning_rate_arms_constant_and_restart():
    study = removal(asked(arms=("40",)), lr_arms=("constant", "restart"))
    runs = by_label(study)
    for label in ("control, lr constant", "blur until epoch 40, lr constant"):
        assert (runs[label].lr, runs[label].lr_schedule) == (0.001, "constant")
    assert runs["control, lr restart"].event == ("lr_restart:40", "lr_restart:80", "lr_restart:120")
    assert runs["blur until epoch 40, lr restart"].event == tuple(f"lr_restart:{t}" for t in (40, 80, 120, 160))
    clean = rates(runs["blur until epoch 40, lr restart"])[40:]
    assert clean[:40] == clean[40:80] == clean[80:120] == clean[120:]
    assert clean[0] == 0.1
    assert [arm.label for arm in study.arms if arm.control] == ["control, lr constant", "control, lr restart"]
    assert {arm.group for arm in study.arms} == {
        f"{n}, lr {a}" for n in ("control", "blur") for a in ("constant", "restart")
    }


def test_arms_of_other_rates_differ_from_the_papers_in_the_rate_only():
    study = removal(asked(arms=("40",)), lr_arms=("not-reset", "reset", "constant", "restart"))
    runs = by_label(study)
    paper = runs["blur until epoch 40, lr not-reset"]
    assert differing(runs["blur until epoch 40, lr reset"], paper) == {"event"}
    assert differing(runs["blur until epoch 40, lr restart"], paper) == {"event"}
    assert differing(runs["blur until epoch 40, lr constant"], paper) == {"lr", "lr_schedule"}


def test_several_deficits_have_one_control():
    study = removal(asked(arms=("20",)), deficits=("blur", "flip", "permute", "noise", "occlude(8)"))
    assert [arm.label for arm in study.arms if arm.control] == ["control"]
    assert [arm.group for arm in study.arms] == ["control", "blur", "flip", "permute", "noise", "occlude(8)"]
    assert by_label(study)["occlude(8) until epoch 20"].deficit == ("occlude(8):0-20",)


def test_a_control_is_there_also_where_the_arms_have_no_zero():
    given, without = (removal(asked(arms=arms)) for arms in (("0", "40"), ("40",)))
    assert given.arms == without.arms


def test_arms_that_scaling_makes_equal_are_run_once_and_the_study_says_so():
    study = removal(asked(arms=("0", "18", "20", "22", "40"), time_scale=0.1))
    assert [arm.value for arm in study.arms] == [0, 2, 4]
    assert len(study.options["notes"]) == 2
    assert "blur until epoch 2 (blur) appears more than once at this time scale" in study.options["notes"][0]


# --- window


def test_window_moves_a_deficit_of_40_epochs():
    study = window(asked())
    control, *others = study.arms
    assert (control.value, control.control, only(control).deficit, only(control).epochs) == (None, True, (), 200)
    for arm, onset in zip(others, (0, 10, 20, 30, 40, 60, 80, 100, 120), strict=True):
        assert (arm.label, arm.group, arm.value) == (f"blur from epoch {onset}", "blur", onset)
        assert only(arm).deficit == (f"blur:{onset}-{onset + 40}",)
        assert differing(only(arm), only(control)) == {"deficit"}


def test_window_at_a_tenth_of_the_time_and_of_another_length():
    study = window(asked(time_scale=0.1, arms=("0", "30")), length=60, deficits=("blur", "flip"))
    assert {arm.label: only(arm).deficit for arm in study.arms} == {
        "control": (),
        "blur from epoch 0": ("blur:0-6",),
        "blur from epoch 3": ("blur:3-9",),
        "flip from epoch 0": ("flip:0-6",),
        "flip from epoch 3": ("flip:3-9",),
    }
    assert {only(arm).epochs for arm in study.arms} == {16 + 6}
    assert study.options["length_run"] == 6


def test_default_onsets_that_leave_no_clean_epoch_are_left_out_and_asked_ones_refused():
    assert [arm.value for arm in window(asked(clean_epochs=30)).arms] == [None, 0, 10, 20]
    with pytest.raises(ValueError, match="arms must start at epoch 29 or before, so that clean epochs follow; got 30"):
        window(asked(clean_epochs=30, arms=("0", "30")))
    with pytest.raises(ValueError, match=r"at epoch 2 or before \(at time scale 0.1\).*; got 3"):
        window(asked(clean_epochs=30, arms=("30",), time_scale=0.1))


# --- regularization


def test_regularization_has_three_sweeps_of_weight_decay_between_two_controls():
    study = regularization(asked())
    assert {arm.label: only(arm).weight_decay for arm in study.arms if arm.control} == {
        "weight decay always on": ("0.0005",),
        "weight decay never on": ("0",),
    }
    inner = (25, 50, 75, 100, 125, 150, 175)
    expected = {
        "on until t": {t: f"0.0005:0-{t}" for t in inner},
        "on from t": {t: f"0.0005:{t}-" for t in inner},
        "on for 50 epochs from t": {
            **{t: f"0.0005:{t}-{t + 50}" for t in (0, 25, 50, 75, 100, 125)},
            150: "0.0005:150-",  # to the end: the same run as that of the sweep `from`
        },
    }
    for name, texts in expected.items():
        assert {arm.value: only(arm).weight_decay for arm in group(study, name)} == {t: (s,) for t, s in texts.items()}
    assert (len(study.arms), len(study.runs)) == (2 + 3 * 7, 2 + 3 * 7 - 2)
    always = study.arms[0]
    for arm in study.arms[1:]:
        assert differing(only(arm), only(always)) == {"weight_decay"}
        assert (only(arm).epochs, only(arm).augment) == (200, ("crop+flip",))


def test_regularization_at_a_tenth_of_the_time():
    study = regularization(asked(time_scale=0.1, arms=("50", "100")), sweeps=("until", "window"))
    assert {arm.label: only(arm).weight_decay for arm in study.arms[2:]} == {
        "weight decay until epoch 5": ("0.0005:0-5",),
        "weight decay until epoch 10": ("0.0005:0-10",),
        "weight decay in epochs 5-10": ("0.0005:5-10",),
        "weight decay in epochs 10-15": ("0.0005:10-15",),
    }
    assert {only(arm).epochs for arm in study.arms} == {20}


def test_augmentation_is_studied_with_the_weight_decay_left_on():
    study = regularization(asked({"model": "allcnn"}, arms=("100",)), regularizer="augment", sweeps=("until", "from"))
    assert {arm.label: only(arm).augment for arm in study.arms} == {
        "augmentation always on": ("crop+flip",),
        "augmentation never on": ("none",),
        "augmentation until epoch 100": ("crop+flip:0-100",),
        "augmentation from epoch 100": ("crop+flip:100-",),
    }
    assert {only(arm).weight_decay for arm in study.arms} == {("0.001",)}


def test_the_strength_is_that_of_the_runs():
    study = regularization(asked({"weight_decay": ("1e-3",)}, arms=("50",)), sweeps=("until",))
    assert [only(arm).weight_decay for arm in study.arms] == [("0.001",), ("0",), ("0.001:0-50",)]


def test_a_sweeps_arm_that_is_a_control_is_left_out_with_a_note():
    study = regularization(asked(arms=("0", "100", "200")), sweeps=("until", "from", "window"))
    assert [arm.label for arm in study.arms[2:]] == [
        "weight decay until epoch 100",
        "weight decay from epoch 100",
        "weight decay in epochs 0-50",
        "weight decay in epochs 100-150",
    ]
    assert study.options["notes"] == [
        "until epoch 0 is the control 'never on'; it is run once.",
        "until epoch 200 is the control 'always on'; it is run once.",
        "from epoch 0 is the control 'always on'; it is run once.",
        "from epoch 200 is the control 'never on'; it is run once.",
        "window from epoch 200: it would reach past the end of the run at epoch 200; left out.",
    ]


def test_the_default_arms_and_window_follow_the_length_of_a_run():
    study = regularization(asked(clean_epochs=40))
    assert [arm.value for arm in group(study, "on until t")] == [5, 10, 15, 20, 25, 30, 35]
    assert [arm.value for arm in group(study, "on for 10 epochs from t")] == [0, 5, 10, 15, 20, 25, 30]


# --- time scale


@given(st.integers(0, 10**6), st.floats(1e-3, 100))
def test_a_scaled_length_is_the_nearest_and_never_nothing(length: int, scale: float):
    found = scaled(length, scale)
    assert (found == 0) == (length == 0)
    assert abs(found - length * scale) <= 0.5 or found == 1


@given(st.sampled_from([0.05, 0.1, 0.2, 0.5, 2.0]), st.floats(0.5, 1))
def test_the_total_decay_is_the_same_at_every_scale(scale: float, decay: float):
    plain, fast = (
        parse_schedule(text) for text in (f"exponential({decay!r})", scaled_schedule(f"exponential({decay!r})", scale))
    )
    assert fast.factor(round(160 * scale), 0) == pytest.approx(plain.factor(160, 0), rel=1e-10)


@pytest.mark.parametrize("scale", [0.1, 0.5])
def test_runs_end_at_the_same_rate_at_every_scale(scale: float):
    whole, fast = (only(removal(asked(arms=("0",), time_scale=s)).arms[0]) for s in (1, scale))
    ends = [rates(run)[-1] * parse_schedule(run.lr_schedule).factor(1, 0) for run in (whole, fast)]
    assert ends[0] == pytest.approx(ends[1], rel=1e-10)
    assert sum(rates(fast)) == pytest.approx(sum(rates(whole)) * scale, rel=0.2)


def test_schedules_with_a_length_are_scaled_others_are_not():
    assert scaled_schedule("step(0.1,60)", 0.1) == "step(0.1,6)"
    assert scaled_schedule("step(0.1,3)", 0.1) == "step(0.1,1)"
    assert scaled_schedule("exponential(0.97)", 1.0) == "exponential(0.97)"
    assert [scaled_schedule(text, 0.1) for text in ("cosine", "constant")] == ["cosine", "constant"]


def test_windows_and_events_of_the_runs_are_scaled_too():
    run = {
        "deficit": ("flip:0-40", "noise:100-"),
        "weight_decay": ("5e-4:0-100",),
        "augment": ("crop+flip:50-",),
        "fraction": ("0.5:0-30",),
        "event": ("lr_scale(0.1):80", "lr_restart:120"),
    }
    made = scaled_run(asked(run, time_scale=0.1))
    assert made["deficit"] == ("flip:0-4", "noise:10-")
    assert made["weight_decay"] == ("0.0005:0-10",)
    assert made["augment"] == ("crop+flip:5-",)
    assert made["fraction"] == ("0.5:0-3",)
    assert made["event"] == ("lr_scale(0.1):8", "lr_restart:12")


def test_a_window_of_less_than_an_epoch_stays_one_epoch():
    made = scaled_run(asked({"deficit": ("flip:50-52",)}, time_scale=0.1))
    assert made["deficit"] == ("flip:5-6",)


def test_what_holds_for_the_whole_run_is_written_as_one_types_it():
    """So that it is the same run as one to which a default was filled in."""
    given_text, default = (removal(asked(run, arms=("0",))) for run in ({"weight_decay": ("5e-4",)}, {}))
    assert given_text.runs == default.runs


# --- seeds


def test_runs_of_an_arm_differ_in_the_seed_only():
    study = window(StudyOptions({}, seeds=4, arms=("0",)))
    for arm in study.arms:
        assert [run.seed for run in arm.runs] == [0, 1, 2, 3]
        assert all(differing(run, arm.runs[0]) == {"seed"} for run in arm.runs[1:])
    assert len(study.runs) == 8


def test_seeds_go_up_from_that_of_the_runs():
    assert [run.seed for run in removal(StudyOptions({"seed": 7}, seeds=2, arms=("0",))).arms[0].runs] == [7, 8]


def test_options_of_the_runs_reach_every_run():
    for name, protocol in PROTOCOLS.items():
        study = protocol(
            asked({"model": "mlp", "width": "32", "data": "mnist", "weight_decay": ("1e-3",), "threads": 1})
        )
        for run in study.runs:
            assert (run.model, run.width, run.data, run.threads) == ("mlp", "32", "mnist", 1), name


def test_what_was_asked_for_is_recorded_as_json():
    import json

    for protocol in PROTOCOLS.values():
        options = StudyOptions({"augment": ("none",)} if protocol is not regularization else {}, arms=None, seeds=2)
        recorded = protocol(options).options
        assert json.loads(json.dumps(recorded)) == recorded
        assert (recorded["seeds"], recorded["time_scale"]) == (2, 1.0)


# --- merging and errors


def test_merging_keeps_the_first_of_a_place_in_a_group():
    arms = [
        PlannedArm(label, group, value, ()) for label, group, value in (("a", "x", 1), ("b", "y", 1), ("c", "x", 1))
    ]
    notes: list[str] = []
    assert [arm.label for arm in merged(arms, notice=notes.append)] == ["a", "b"]
    assert notes == ["c (x) appears more than once at this time scale; it is run once."]
    with pytest.raises(ValueError, match="arms must differ; got 'a' twice"):
        Study("p", "axis", (arms[0], dataclasses.replace(arms[0], value=2.0)), {})


ERRORS = {
    "seeds": (lambda: asked(seeds=0), "seeds must be a whole number >= 1; got 0"),
    "time_scale": (lambda: asked(time_scale=0.0), "time_scale must be above 0 and at most 100; got 0.0"),
    "time_scale_nan": (lambda: asked(time_scale=float("nan")), "time_scale must be above 0 and at most 100; got nan"),
    "clean_epochs": (lambda: asked(clean_epochs=0), "clean_epochs must be a whole number >= 1; got 0"),
    "no_arms": (lambda: asked(arms=()), "arms must be at least one value"),
    "length_in_run": (lambda: asked({"epochs": 3}), "epochs must not be among the options of all runs"),
    "arms": (lambda: removal(asked(arms=("20", "x"))), r"arms must be epochs >= 0, such as 0,20,40; got 'x'\."),
    "arms_half": (lambda: removal(asked(arms=("2.5",))), "arms must be epochs >= 0, such as 0,20,40; got '2.5'"),
    "arms_minus": (lambda: window(asked(arms=("-5",))), "arms must be epochs >= 0, such as 0,20,40; got '-5'"),
    "windowed": (lambda: removal(asked(), deficits=("blur:0-40",)), "must have no window here.*got 'blur:0-40'"),
    "open_window": (lambda: window(asked(), deficits=("blur(8):0-",)), "must have no window here.*'blur\\(8\\):0-'"),
    "no_deficit": (lambda: removal(asked(), deficits=()), "deficit must be given at least once.*got none"),
    "twice": (lambda: removal(asked(), deficits=("blur", "blur")), "each of them once; got 'blur' twice"),
    "unknown_deficit": (lambda: removal(asked(), deficits=("blurr",)), "deficit 'blurr'.*Did you mean 'blur'"),
    "lr_arm": (lambda: removal(asked(), lr_arms=("none",)), "lr_arm must be one of not-reset, .*; got 'none'"),
    "length": (lambda: window(asked(), length=0), "length of the window must be a whole number of epochs >= 1; got 0"),
    "regularizer": (
        lambda: regularization(asked(), regularizer="dropout"),
        "regularizer must be one of weight-decay, augment; got 'dropout'",
    ),
    "sweep": (lambda: regularization(asked(), sweeps=("after",)), "sweep must be one of .*; got 'after'"),
    "sweeps": (lambda: regularization(asked(), sweeps=("from", "from")), "each once; got"),
    "reg_length": (lambda: regularization(asked(), length=200), "at least 1 and below the 200 epochs; got 200"),
    "reg_late": (lambda: regularization(asked(arms=("201",))), "arms must be at most 200, .*; got 201"),
    "reg_window": (
        lambda: regularization(asked({"weight_decay": ("5e-4:0-10",)})),
        r"weight decay must have no window here.*got --weight-decay 5e-4:0-10",
    ),
    "reg_off": (lambda: regularization(asked({"model": "mlp"})), "weight decay must be on to be studied; got '0.0'"),
    "late_event": (
        lambda: removal(asked({"event": ("lr_scale(0.1):170",)})),
        r"event 'lr_scale\(0.1\):170' must be before the end of every run; one ends at epoch 160",
    ),
    "late_window": (
        lambda: removal(asked({"fraction": ("0.5:170-",)})),
        "must start before the run ends after 160 epochs",
    ),
    "batch": (lambda: for_each_seed(asked(), {"batch_size": 0}, epochs=1), "batch_size"),
}


@pytest.mark.parametrize(("call", "message"), ERRORS.values(), ids=ERRORS)
def test_errors_name_the_argument_and_what_it_got(call, message: str):
    with pytest.raises(ValueError, match=message):
        call()
