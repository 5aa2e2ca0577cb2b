"""A training goes on to the same bits from any step, and refuses a state that is not its own."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from resumable import MIDDLE, assert_same_state, start, states_and_end, through_file
from torch import nn
from training_cases import assert_same_weights, conv_net, dropout_net, image_set, linear_net, numbers, training

from fisherkit.training import deterministic
from fisherkit.training.state import PARTS

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": "sgd"},
    "sgd-bf16-refresh": {"optimizer": "sgd", "precision": "bf16", "refresh_batchnorm": True},
    "adam": {"optimizer": "adam", "lr": 0.01, "lr_schedule": "cosine"},
}


@pytest.fixture(autouse=True)
def _deterministic() -> Iterator[None]:
    with deterministic(1):
        yield


@pytest.mark.parametrize("options", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_resuming_at_every_step_ends_in_the_same_bits(options: dict[str, Any]) -> None:
    states, end, reports = states_and_end(**options)
    assert len(states) == 1 + 5 + 5
    for state in states:
        resumed = start(model_seed=99, **options)
        resumed.load_state_dict(state)
        rest = list(resumed.epochs())
        assert list(map(numbers, rest)) == list(map(numbers, reports[state["epoch"] :]))
        assert_same_weights(resumed.model, end.model)
        assert_same_state(resumed.state_dict(), end.state_dict())


def test_elapsed_time_goes_on() -> None:
    states, _, _ = states_and_end()
    resumed = start()
    resumed.load_state_dict({**states[7], "elapsed_s": 1000.0})
    (report,) = resumed.epochs()
    assert 1000 < report.elapsed_s < 1500


def test_a_state_is_a_snapshot_that_later_steps_leave_alone() -> None:
    made = start()
    iterator = made.steps()
    for _ in range(3):
        next(iterator)
    state = made.state_dict()
    copied = through_file(state)
    next(iterator)
    assert_same_state(state, copied)


def test_loading_into_a_running_training_takes_it_back() -> None:
    made = start()
    iterator = made.steps()
    for _ in range(3):
        next(iterator)
    state = made.state_dict()
    for _ in range(4):
        next(iterator)
    made.load_state_dict(state)
    list(iterator)
    assert_same_weights(made.model, states_and_end()[1].model)


@pytest.mark.parametrize("part", PARTS)
def test_a_missing_part_is_named(part: str) -> None:
    state = start().state_dict()
    del state[part]
    with pytest.raises(ValueError, match=f"got none named {part}"):
        start().load_state_dict(state)


# states that do not fit


def changed(**parts: Any) -> dict[str, Any]:
    states, _, _ = states_and_end()
    return {**states[MIDDLE], **parts}


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"epoch": "1"}, "epoch of the state must be of type int; got str"),
        ({"step": True}, "step of the state must be of type int; got bool"),
        ({"step": -1}, "step of the state must be >= 0; got -1"),
        ({"losses": torch.zeros(2)}, r"losses of the state must be torch.float32 with shape \(3,\).*got .*\(2,\)"),
        ({"correct": torch.zeros(3)}, "correct of the state must be torch.int64 .*; got torch.float32"),
        ({"epoch": 2}, "epochs must be at least the 3 already begun; got 2"),
        (
            {"step_in_epoch": 5, "losses": torch.zeros(5), "correct": torch.zeros(5, dtype=torch.int64)},
            "step_in_epoch of the state must be below 5, the steps of an epoch; got 5",
        ),
        (
            {"optimizer_name": "adam"},
            "optimizer must be 'adam', as in the saved training; got 'sgd'.* load only the model",
        ),
        ({"seed": 3}, "seed must be 3, as in the saved training, until epoch 1 ends; got 0"),
        ({"batch_size": 9}, "batch_size must be 9, as in the saved training, until epoch 1 ends; got 8"),
        ({"train_images": "0"}, "train_images must be '0', as in the saved training"),
        ({"conditions": {}}, "conditions must be {}, as in the saved training, until epoch 1 ends"),
        ({"optimizer": {7: {}}}, "saved optimizer state must hold momentum_buffer for at most 6 parameters.* 7"),
        ({"optimizer": {0: {"exp_avg": torch.zeros(1)}}}, "saved optimizer state must hold momentum_buffer"),
        (
            {"optimizer": {0: {"momentum_buffer": torch.zeros(1)}}},
            r"saved momentum_buffer of parameter 0 must have shape \(4, 3, 3, 3\); got .* \(1,\)",
        ),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_a_state_that_does_not_fit_is_refused_and_nothing_has_changed(parts: dict[str, Any], message: str) -> None:
    made = start()
    next(made.steps())
    before = made.state_dict()
    with pytest.raises(ValueError, match=message):
        made.load_state_dict(changed(**parts))
    assert_same_state(made.state_dict(), before)


def test_what_is_not_a_state_is_refused() -> None:
    with pytest.raises(ValueError, match="state must have the parts model, optimizer"):
        start().load_state_dict({})


def other_net(seed: int) -> nn.Module:
    model = conv_net(seed)
    model[6] = nn.Linear(16, 3, bias=False)
    return model


def test_a_state_of_another_model_is_refused_with_the_difference() -> None:
    state = start().state_dict()
    with pytest.raises(ValueError, match=r"same model: it has 6.bias, which the model has not. Build the model"):
        training(other_net).load_state_dict(state)
    with pytest.raises(
        ValueError, match=r"it lacks 3.weight, 3.bias; it has 0.weight, 0.bias, 1.running_mean and \d more, which"
    ):
        training(linear_net).load_state_dict(state)
    state["model"]["6.weight"] = torch.zeros(3, 8)
    message = r"the saved '6.weight' must be torch.float32 of shape \(3, 16\) as in the model; got .*\(3, 8\)"
    with pytest.raises(ValueError, match=message):
        start().load_state_dict(state)
    state["model"]["6.weight"] = torch.zeros(3, 16, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"must be torch.float32 .* got torch.float64"):
        start().load_state_dict(state)


def test_between_epochs_a_run_may_branch_off_with_other_options() -> None:
    made = start()
    next(made.epochs())
    branch = training(
        dropout_net, conditions={}, epochs=4, seed=5, batch_size=20, lr=0.01, lr_schedule="constant", images=30
    )
    branch.load_state_dict(made.state_dict())
    reports = list(branch.epochs())
    assert [report.epoch for report in reports] == [1, 2, 3]
    assert {report.lr for report in reports} == {0.01}
    assert {group["lr"] for group in branch.optimizer.param_groups} == {0.01}


def test_a_finished_state_has_nothing_left_to_do() -> None:
    _, end, _ = states_and_end()
    resumed = start()
    resumed.load_state_dict(end.state_dict())
    assert list(resumed.steps()) == []
    assert image_set(40).digest == end.state_dict()["train_images"]
