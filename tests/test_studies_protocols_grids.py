"""Protocols over grids: warm start and early Fisher."""

import pytest
from planned import asked, by_label, differing, group, only, rates

from fisherkit.conditions import Conditions
from fisherkit.studies.protocols import early_fisher, warm_start
from fisherkit.training.batches import used_images

# --- warm start


def test_warm_start_is_half_of_the_images_then_all_of_them():
    study = warm_start(asked())
    fresh, warm, *shrunk = study.arms
    assert (fresh.label, fresh.group, fresh.value, fresh.control) == ("fresh start", "fresh start", None, True)
    assert (only(fresh).fraction, only(fresh).event, only(fresh).epochs) == ((), (), 350)
    assert (warm.label, warm.group, warm.value, warm.control) == ("warm start", "warm start", None, False)
    assert (only(warm).fraction, only(warm).event, only(warm).epochs) == (("0.5:0-350",), (), 700)
    for arm, scale in zip(shrunk, (0.0, 0.2, 0.4, 0.6, 0.8), strict=True):
        assert (arm.label, arm.group, arm.value) == (f"shrink-perturb {scale:g}", "shrink-perturb", scale)
        assert only(arm).event == (f"shrink_perturb({scale!r},0.1):350",)
        assert differing(only(arm), only(warm)) == {"event"}
    assert (study.protocol, study.axis) == ("warm-start", "lambda")


def test_the_fresh_start_sees_all_images_as_often_and_at_the_same_rates_as_the_others():
    for schedule in ("constant", "exponential(0.97)", "step(0.1,100)", "cosine"):
        study = warm_start(asked({"lr_schedule": schedule}, clean_epochs=200, arms=("0.4",)), warm_epochs=300)
        fresh, warm, shrunk = (only(arm) for arm in study.arms)
        assert (fresh.epochs, warm.epochs, warm.fraction) == (200, 500, ("0.5:0-300",))
        assert rates(warm)[300:] == rates(shrunk)[300:] == rates(fresh)
        restarts = () if schedule == "constant" else ("lr_restart:300",)
        assert (warm.event, shrunk.event) == (restarts, (*restarts, "shrink_perturb(0.4,0.1):300"))
        assert differing(fresh, warm) - {"event"} == {"fraction", "epochs", "gradient_norms"}


def test_the_authors_settings_unless_the_run_says_otherwise():
    run = only(warm_start(asked()).arms[1])
    assert (run.optimizer, run.lr, run.lr_schedule, run.momentum, run.batch_size) == (
        "sgd",
        0.001,
        "constant",
        0.0,
        128,
    )
    assert Conditions.parse(weight_decay=run.weight_decay).at(0).weight_decay == 0
    assert run.augment == ("none",)
    assert run.gradient_norms
    adam = only(warm_start(asked({"optimizer": "adam"})).arms[1])
    assert (adam.lr, adam.lr_schedule, adam.momentum) == (0.001, "constant", 0.9)
    given = {"lr": 0.1, "momentum": 0.5, "augment": ("crop",), "weight_decay": ("1e-3",), "gradient_norms": False}
    other = only(warm_start(asked(given)).arms[1])
    assert (other.lr, other.momentum, other.augment, other.weight_decay) == (0.1, 0.5, ("crop",), ("0.001",))
    assert not other.gradient_norms


@pytest.mark.parametrize("model", ["resnet18", "mlp", "linear"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_authors_split_and_stopping_rule_are_options_of_every_run(model: str, optimizer: str):
    given = {"model": model, "optimizer": optimizer, "stop_accuracy": 0.99, "held_out": 1 / 3}
    study = warm_start(asked(given))
    assert {(r.model, r.optimizer, r.stop_accuracy, r.held_out) for r in study.runs} == {
        (model, optimizer, 0.99, 1 / 3)
    }
    assert {r.fraction for r in study.runs} == {(), ("0.5:0-350",)}


def test_warm_start_at_a_tenth_of_the_time():
    study = warm_start(asked(time_scale=0.1, arms=("0.6",)), share=0.25)
    runs = by_label(study)
    assert runs["fresh start"].epochs == 35
    assert (runs["warm start"].fraction, runs["warm start"].epochs) == (("0.25:0-35",), 70)
    assert runs["shrink-perturb 0.6"].event == ("shrink_perturb(0.6,0.1):35",)
    assert (study.options["switches_run"], study.options["epochs_run"], study.options["clean_epochs_run"]) == (
        [35],
        70,
        35,
    )


def test_several_noises_are_a_group_each():
    study = warm_start(asked(arms=("0.4", "0.6")), noises=(0.1, 0.01))
    for noise in (0.1, 0.01):
        arms = group(study, f"shrink-perturb (noise {noise})")
        assert {arm.value: only(arm).event for arm in arms} == {
            scale: (f"shrink_perturb({scale},{noise}):350",) for scale in (0.4, 0.6)
        }


def test_the_sweep_over_batch_sizes_and_rates_compares_each_with_its_own_fresh_start():
    study = warm_start(asked(arms=("none",)), batch_sizes=(16, 128), lrs=(0.001, 0.1))
    assert [(only(arm).batch_size, only(arm).lr, arm.label) for arm in study.arms] == [
        (batch, lr, f"{name} start, batch {batch}, lr {lr}")
        for batch in (16, 128)
        for lr in (0.001, 0.1)
        for name in ("fresh", "warm")
    ]
    for fresh, warm in zip(study.arms[::2], study.arms[1::2], strict=True):
        assert (fresh.control, warm.control) == (True, False)
        assert fresh.group.partition(", ")[2] == warm.group.partition(", ")[2]  # by which results find the control
        assert differing(only(fresh), only(warm)) == {"fraction", "epochs", "gradient_norms"}


def test_results_find_the_control_of_the_same_batch_size_and_rate():
    from fisherkit.recording import ArmRecord, StudyRecord

    study = warm_start(asked(arms=("0.4",)), batch_sizes=(16, 128), noises=(0.1, 0.01))
    arms = tuple(ArmRecord(arm.label, arm.group, float("nan"), arm.control, {}) for arm in study.arms)
    record = StudyRecord(study.protocol, study.axis, arms, study.options)
    for arm in record.arms:
        if not arm.control:
            assert record.control_of(arm).label == f"fresh start, batch {16 if 'batch 16' in arm.label else 128}"


def test_online_brings_in_so_many_images_a_round():
    study = warm_start(asked({"data": "cifar10"}, arms=("0.6",), clean_epochs=20), online=15_000)
    runs = by_label(study)
    assert (runs["fresh start"].fraction, runs["fresh start"].epochs) == ((), 20)
    for label in ("warm start", "shrink-perturb 0.6"):
        run = runs[label]
        assert run.epochs == 80
        images = [used_images(50_000, run.conditions().at(epoch).fraction) for epoch in (0, 19, 20, 40, 59, 60, 79)]
        assert images == [15_000, 15_000, 30_000, 45_000, 45_000, 50_000, 50_000]
    assert runs["shrink-perturb 0.6"].event == tuple(f"shrink_perturb(0.6,0.1):{k}" for k in (20, 40, 60))
    assert runs["warm start"].event == ()


@pytest.mark.parametrize(
    ("run", "images"),
    [({"train_images": 3_001}, 3_001), ({}, 5_000), ({"data": "svhn", "held_out": 1 / 3}, 73_257 - 24_419)],
)
def test_online_rounds_have_exactly_so_many_images_of_those_trained_on(run, images: int):
    study = warm_start(asked(run, arms=("none",), clean_epochs=1), online=100)
    conditions = only(study.arms[1]).conditions()
    rounds = -(-images // 100)
    assert only(study.arms[1]).epochs == rounds
    counts = [used_images(images, conditions.at(epoch).fraction) for epoch in range(rounds)]
    assert counts == [min(100 * (k + 1), images) for k in range(rounds)]


def test_online_with_a_decaying_rate_starts_it_anew_every_round():
    run = only(warm_start(asked({"lr_schedule": "exponential(0.9)"}, clean_epochs=10), online=2_000).arms[1])
    assert rates(run)[:10] == rates(run)[10:20] == rates(run)[20:]


# --- early Fisher


def test_early_fisher_is_a_grid_of_rates_and_penalties_with_a_dense_start():
    study = early_fisher(asked())
    for name, penalty in (("no penalty", None), ("penalty 0.1:10", "0.1:10")):
        arms = group(study, name)
        assert [arm.value for arm in arms] == [only(arm).lr for arm in arms] == [0.001, 0.003, 0.01, 0.03, 0.1]
        assert {only(arm).fisher_penalty for arm in arms} == {penalty}
    assert [arm.label for arm in study.arms if arm.control] == ["lr 0.1, no penalty"]
    for arm in study.arms:
        run = only(arm)
        assert (run.epochs, run.lr_schedule, run.every, run.augment) == (200, "constant", "log", ("none",))
        assert Conditions.parse(weight_decay=run.weight_decay).at(0).weight_decay == 0
        assert differing(run, only(study.arms[0])) <= {"lr", "fisher_penalty"}


def test_early_fisher_at_a_tenth_of_the_time_with_batch_sizes_and_rates_of_ones_own():
    study = early_fisher(asked(time_scale=0.1, arms=("0.1", "0.01")), batch_sizes=(32, 128), penalties=("0.5:1:held",))
    assert [(arm.label, only(arm).batch_size, only(arm).lr, arm.control) for arm in study.arms] == [
        (f"lr {lr}, penalty 0.5:1:held, batch {batch}", batch, lr, lr == 0.1)
        for batch in (32, 128)
        for lr in (0.01, 0.1)
    ]
    assert {only(arm).epochs for arm in study.arms} == {20}
    assert {only(arm).fisher_penalty for arm in study.arms} == {"0.5:1:held"}


def test_early_fisher_scales_the_rate_of_the_run_and_keeps_its_options():
    study = early_fisher(asked({"lr": 0.2, "every": "2", "weight_decay": ("1e-3",)}), penalties=("none",))
    assert [arm.value for arm in study.arms] == pytest.approx([0.002, 0.006, 0.02, 0.06, 0.2])
    assert {(only(arm).every, only(arm).weight_decay) for arm in study.arms} == {("2", ("0.001",))}


ERRORS = {
    "share": (lambda: warm_start(asked(), share=1.0), r"share must be above 0 and below 1, .*; got 1\.0"),
    "warm_epochs": (lambda: warm_start(asked(), warm_epochs=0), "warm_epochs must be a whole number >= 1; got 0"),
    "lambda": (lambda: warm_start(asked(arms=("0.4", "1.2"))), "arms must be lambdas from 0 to 1; got '1.2'"),
    "lambda_text": (lambda: warm_start(asked(arms=("0.4", "none"))), "arms must be lambdas from 0 to 1; got 'none'"),
    "noise": (
        lambda: warm_start(asked(), noises=(-1.0,)),
        r"perturb of shrink_perturb must be finite and >= 0; got -1\.0",
    ),
    "no_noise": (lambda: warm_start(asked(), noises=()), "noise must be given at least once"),
    "fraction": (lambda: warm_start(asked({"fraction": ("0.5",)})), "fraction must be left out.*Use --share"),
    "batch": (
        lambda: warm_start(asked({"batch_size": 8}), batch_sizes=(16,)),
        "batch_size must be left out where batch_sizes are given",
    ),
    "lr": (lambda: warm_start(asked({"lr": 0.1}), lrs=(0.1,)), "lr must be left out where lrs are given"),
    "lr_range": (
        lambda: warm_start(asked(), lrs=(-0.1,)),
        r"lr must be a number above 0 and at most 1e\+30; got -0\.1",
    ),
    "online": (
        lambda: warm_start(asked(), online=5000),
        "online must be a number of images, 1 to 4999 of the 5000; got 5000",
    ),
    "online_many": (lambda: warm_start(asked(), online=1), "at most 1000 rounds of the 5000 images; got 1"),
    "stop": (lambda: warm_start(asked({"stop_accuracy": 99.0})), "stop_accuracy must be above 0 and at most 1; got 99"),
    "penalty": (lambda: early_fisher(asked(), penalties=("x",)), "fisher_penalty must be ALPHA.*; got 'x'"),
    "no_penalty": (lambda: early_fisher(asked(), penalties=()), "penalties must be at least one, or the word none"),
    "penalty_in_run": (lambda: early_fisher(asked({"fisher_penalty": "0.1"})), "fisher_penalty must be left out here"),
    "rates": (
        lambda: early_fisher(asked(arms=("0",))),
        "arms must be learning rates above 0, such as 0.01,0.1; got '0'",
    ),
    "rate_nan": (lambda: early_fisher(asked(arms=("nan",))), "arms must be learning rates above 0.*; got 'nan'"),
    "rates_and_lr": (
        lambda: early_fisher(asked({"lr": 0.1}, arms=("0.1",))),
        "lr must be left out where arms are given",
    ),
}


@pytest.mark.parametrize(("call", "message"), ERRORS.values(), ids=ERRORS)
def test_errors_name_the_argument_and_what_it_got(call, message: str):
    with pytest.raises(ValueError, match=message):
        call()
