"""Phases that end at an accuracy, and the loss gradient on old and new images."""

import io
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from training_cases import assert_same_weights, conv_net, dropout_net, image_set, linear_net, numbers, training

from fisherkit.conditions import Conditions
from fisherkit.training import Training, deterministic, fraction_members, gradient_norms
from fisherkit.training.batches import old_and_new_images

WARM_START = {"fraction": ["0.5:0-6"], "events": ["shrink_perturb(0.5,0.2):6", "lr_scale(0.5):3"]}
LEARNS = {"epochs": 14, "lr": 0.02, "lr_schedule": "exponential(0.9)", "batch_size": 8}


def warm_start(make_model: Any = linear_net, **options: Any) -> Training:
    return training(make_model, conditions=WARM_START, **{**LEARNS, **options})


def test_phases_lie_between_starts_and_stops_of_fractions() -> None:
    conditions = Conditions.parse(fraction=["0.5:2-4", "0.7:4-9"], deficits=["blur:1-3"])
    assert conditions.phase_starts == (0, 2, 4, 9)
    assert [conditions.next_phase(epoch) for epoch in (0, 1, 2, 8, 9, 50)] == [2, 2, 4, 9, None, None]
    assert [conditions.fraction_before(epoch) for epoch in (0, 1, 2, 4, 8, 9)] == [None, None, 1.0, 0.5, 0.5, 0.7]
    assert (Conditions().phase_starts, Conditions().next_phase(3)) == ((0,), None)
    assert Conditions.parse(fraction=["0.5"]).phase_starts == (0,)


# a phase ends at an accuracy


def test_a_phase_ends_when_its_images_are_learned_and_the_next_one_follows() -> None:
    whole = list(warm_start().epochs())
    wanted = whole[2].train_accuracy
    assert max(report.train_accuracy for report in whole[:2]) < wanted < 1
    made = warm_start(stop_accuracy=wanted)
    reports = list(made.epochs())
    epochs = [report.epoch for report in reports]
    assert epochs[:4] == [0, 1, 2, 6]
    assert list(map(numbers, reports[:2])) == list(map(numbers, whole[:2]))
    assert (reports[2].next_epoch, reports[2].skipped_epochs, reports[1].skipped_epochs) == (6, 3, 0)
    assert [report.images for report in reports[:4]] == [20, 20, 20, 40]
    assert [report.lr for report in reports[2:4]] == pytest.approx([0.02 * 0.9**2, 0.02 * 0.9**6 * 0.5])
    assert reports[3].conditions.events[0].name == "shrink_perturb"
    last = reports[-1]
    assert all(report.train_accuracy < wanted for report in reports[3:-1])
    assert (last.train_accuracy >= wanted, last.epoch < 13, last.next_epoch, made.epoch) == (True, True, 14, 14)
    assert list(made.steps()) == []


def test_what_follows_is_what_would_have_followed_at_that_epoch() -> None:
    wanted = list(warm_start().epochs())[2].train_accuracy
    made, by_hand = warm_start(stop_accuracy=wanted), warm_start()
    steps = by_hand.epochs()
    for _ in range(3):
        next(steps)
    state = by_hand.state_dict()
    by_hand.load_state_dict({**state, "epoch": 6})
    later = list(made.epochs())[3:]
    assert list(map(numbers, later[:-1])) == [numbers(next(steps)) for _ in later[:-1]]
    next(steps)
    assert_same_weights(made.model, by_hand.model)


def test_an_accuracy_that_is_never_reached_changes_nothing() -> None:
    conditions = {"deficits": ["noise"], **WARM_START}
    free, bound = (training(linear_net, conditions=conditions, **LEARNS, stop_accuracy=a) for a in (None, 1.0))
    assert list(map(numbers, free.epochs())) == list(map(numbers, bound.epochs()))
    assert_same_weights(free.model, bound.model)


def test_an_accuracy_at_the_last_epoch_of_a_phase_skips_nothing() -> None:
    wanted = next(warm_start(stop_accuracy=None).epochs()).train_accuracy
    made = training(linear_net, conditions={"fraction": ["0.5:0-1"]}, **LEARNS, stop_accuracy=wanted)
    first = next(made.epochs())
    assert (first.next_epoch, first.skipped_epochs) == (1, 0)


def test_a_phase_beyond_the_end_ends_the_run() -> None:
    made = training(linear_net, conditions={"fraction": ["0.5:0-50"]}, **LEARNS, stop_accuracy=0.01)
    assert [(report.epoch, report.next_epoch) for report in made.epochs()] == [(0, 14)]


def through_file(state: dict[str, Any]) -> dict[str, Any]:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def test_resuming_at_every_step_ends_in_the_same_bits() -> None:
    options = {"stop_accuracy": 0.8, "gradient_norms": True, "fisher_penalty": "0.01:4:held"}
    with deterministic(1):
        whole = warm_start(dropout_net, **options)
        states, reports = [through_file(whole.state_dict())], []
        for step in whole.steps():
            states.append(through_file(whole.state_dict()))
            reports += [step.report] if step.report else []
        assert any(report.skipped_epochs for report in reports)
        for state in states:
            resumed = warm_start(dropout_net, **options, model_seed=9)
            resumed.load_state_dict(state)
            rest = [numbers(report) for report in resumed.epochs()]
            expected = [numbers(report) for report in reports if report.epoch >= state["epoch"]]
            assert list(map(repr, rest)) == list(map(repr, expected))  # repr: NaN equals NaN
            assert_same_weights(resumed.model, whole.model)
            assert resumed.epoch == whole.epoch == 14


def test_an_event_that_might_be_skipped_is_refused() -> None:
    conditions = {"fraction": ["0.5:0-6"], "events": ["shrink_perturb:4"]}
    training(linear_net, conditions=conditions, **LEARNS)
    message = r"event 'shrink_perturb\(0.4,0.1\):4' must be at the first epoch of a phase \(0, 6\) with stop_accuracy"
    with pytest.raises(ValueError, match=message):
        training(linear_net, conditions=conditions, **LEARNS, stop_accuracy=0.9)


@pytest.mark.parametrize("wanted", [0.0, 1.5, -1.0, float("nan"), True])
def test_an_accuracy_out_of_range_is_refused(wanted: float) -> None:
    with pytest.raises(ValueError, match="stop_accuracy must be above 0 and at most 1; got"):
        warm_start(stop_accuracy=wanted)


# gradients on old and new images


def test_old_and_new_images_are_those_of_the_fractions() -> None:
    labels = torch.arange(60) % 3
    old, new = old_and_new_images(labels, before=0.25, now=0.75, classes=3, seed=4)
    before, now = (fraction_members(labels, fraction, classes=3, seed=4) for fraction in (0.25, 0.75))
    assert sorted(old.tolist()) == torch.nonzero(before).flatten().tolist()
    assert sorted(new.tolist()) == torch.nonzero(now & ~before).flatten().tolist()
    for group in (old, new, old[:9], new[:9]):
        counts = torch.bincount(labels[group], minlength=3)
        assert counts.max() - counts.min() <= 1


def mean_gradient(model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> float:
    gradients = torch.autograd.grad(F.cross_entropy(model(inputs), labels), list(model.parameters()))
    return math.sqrt(sum(float(gradient.double().square().sum()) for gradient in gradients))


def test_the_norm_is_that_of_the_mean_gradient() -> None:
    model, images = linear_net(), image_set(700)
    old, new = torch.arange(600), torch.arange(600, 613)
    found = gradient_norms(model, images, old, new)
    for norm, indices in zip(found, (old, new), strict=True):
        expected = mean_gradient(model, images.normalised(indices), images.labels[indices])
        assert norm == pytest.approx(expected, rel=1e-5)


def test_batchnorm_has_the_statistics_of_the_images_and_nothing_is_left_behind() -> None:
    model, images = conv_net(dropout=0.5), image_set(60)
    model.train()
    model[1].eval()
    model[0].weight.grad = torch.ones(4, 3, 3, 3)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random_numbers = torch.get_rng_state()
    found = gradient_norms(model, images, torch.arange(40), torch.arange(40, 60))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_numbers)
    assert [module.training for module in model] == [True, False, *[True] * 5]
    assert torch.equal(model[0].weight.grad, torch.ones(4, 3, 3, 3))
    assert all(p.grad is None for name, p in model.named_parameters() if name != "0.weight")
    twin = conv_net()
    activations = twin[0](images.normalised())
    twin[1].running_mean, twin[1].running_var = (
        activations.mean((0, 2, 3)).detach(),
        activations.var((0, 2, 3)).detach(),
    )
    twin.eval()
    expected = mean_gradient(twin, images.normalised()[40:], images.labels[40:])
    assert found.new == pytest.approx(expected, rel=1e-4)


def norms(**changes: Any) -> list[tuple[float, float]]:
    conditions = {"fraction": ["0.3:0-1", "0.6:1-3", "0.4:3-4"], **changes.pop("conditions", {})}
    made = training(linear_net, conditions=conditions, epochs=6, gradient_norms=True, **changes)
    return [tuple(report.gradient_norms) for report in made.epochs()]


def test_norms_are_there_while_a_phase_has_images_that_the_one_before_had_not() -> None:
    found = norms()
    assert [not math.isnan(old) for old, _ in found] == [False, True, True, False, True, True]
    assert [math.isnan(old) == math.isnan(new) for old, new in found] == [True] * 6


def test_norms_are_those_at_the_start_of_the_epoch_after_its_events() -> None:
    conditions = {"fraction": ["0.5:0-1"], "events": ["shrink_perturb(0.5,0.2):1"], "deficits": ["permute", "flip:1-"]}
    made = training(linear_net, conditions=conditions, gradient_norms=True, seed=3)
    next(made.epochs())
    twin = training(linear_net, conditions=conditions, seed=3)
    twin.load_state_dict(made.state_dict())
    batches = twin._start_epoch()
    members = fraction_members(twin.train_images.labels, 0.5, classes=3, seed=3)
    report = next(made.epochs())
    for norm, group in zip(report.gradient_norms, (members, ~members), strict=True):
        expected = mean_gradient(twin.model, batches.images.normalised()[group], batches.images.labels[group])
        assert norm == pytest.approx(expected, rel=1e-5)


def test_measuring_leaves_the_training_bit_identical() -> None:
    conditions = {"fraction": ["0.5:0-1"], "events": ["shrink_perturb(0.5,0.2):2"], "augment": ["crop+flip"]}
    with deterministic(1):
        plain, measured = (
            training(dropout_net, conditions=conditions, epochs=4, gradient_norms=norms, precision="bf16")
            for norms in (False, True)
        )
        reports = list(zip(plain.epochs(), measured.epochs(), strict=True))
        for mine, other in reports:
            assert {**numbers(mine), "gradient_norms": None} == {**numbers(other), "gradient_norms": None}
        assert_same_weights(plain.model, measured.model)
    assert [one.gradient_norms for one, _ in reports] == [None] * 4
    assert all(norm > 0 for _, report in reports[1:] for norm in report.gradient_norms)


@pytest.mark.parametrize(
    ("fraction", "shown"), [([], "none"), (["0.5"], "0.5:0-"), (["0.5:2-"], "0.5:2-"), (["0.5:0-9"], "0.5:0-9")]
)
def test_norms_without_new_images_are_refused(fraction: list[str], shown: str) -> None:
    message = f"gradient_norms needs images that come in .* ends before epoch 8, for example 0.5:0-4; got {shown}"
    with pytest.raises(ValueError, match=message):
        training(linear_net, conditions={"fraction": fraction}, epochs=8, gradient_norms=True)


@pytest.mark.parametrize("value", [[1.0], [1.0, "a"], [1, 2]])
def test_norms_of_a_foreign_state_are_refused(value: list[Any]) -> None:
    made = training(linear_net, conditions={"fraction": ["0.5:0-1"]}, gradient_norms=True)
    next(made.steps())
    with pytest.raises(ValueError, match="gradient_norms of the state must be two numbers; got"):
        made.load_state_dict({**made.state_dict(), "gradient_norms": value})
