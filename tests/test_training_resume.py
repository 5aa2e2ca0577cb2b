"""A training goes on to the same bits from any step, and refuses a state that is not its own."""

import io
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from training_cases import assert_same_weights, conv_net, dropout_net, image_set, linear_net, numbers, training

from fisherkit.training import Training, deterministic
from fisherkit.training.state import PARTS

EVERYTHING = {
    "deficits": ["blur(2):0-2", "noise:1-2", "permute"],
    "augment": ["crop+flip"],
    "weight_decay": ["0.01:1-"],
    "fraction": ["0.9:0-1"],
    "events": ["shrink_perturb(0.5,0.2):1", "lr_restart:1", "lr_scale(0.5):1"],
}
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": "sgd"},
    "sgd-bf16-refresh": {"optimizer": "sgd", "precision": "bf16", "refresh_batchnorm": True},
    "adam": {"optimizer": "adam", "lr": 0.01, "lr_schedule": "cosine"},
}


@pytest.fixture(autouse=True)
def _deterministic() -> Iterator[None]:
    with deterministic(1):
        yield


def start(model_seed: int = 0, **options: Any) -> Training:
    return training(dropout_net, conditions=EVERYTHING, model_seed=model_seed, **options)


def through_file(state: dict[str, Any]) -> dict[str, Any]:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    loaded: dict[str, Any] = torch.load(buffer, weights_only=True)
    return loaded


def states_and_end(**options: Any) -> tuple[list[dict[str, Any]], Training, list[Any]]:
    """The state before the first step and after every step, the finished training, and its reports."""
    made = start(**options)
    states, reports = [through_file(made.state_dict())], []
    for step in made.steps():
        states.append(through_file(made.state_dict()))
        reports += [step.report] if step.report is not None else []
    return states, made, reports


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


def assert_same_state(state: Any, other: Any, place: str = "state") -> None:
    if isinstance(state, dict):
        assert state.keys() == other.keys(), place
        for key in state.keys() - {"elapsed_s"}:
            assert_same_state(state[key], other[key], f"{place}[{key!r}]")
    elif isinstance(state, Tensor):
        assert torch.equal(state, other), place
    else:
        assert state == other, place


def is_same_state(state: Any, other: Any) -> bool:
    try:
        assert_same_state(state, other)
    except AssertionError:
        return False
    return True


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


# each part matters

MIDDLE = 8  # steps: in the middle of the second epoch


def blanked(part: str, state: dict[str, Any]) -> dict[str, Any]:
    """The state with a part as it would be had nobody saved it."""
    blanks: dict[str, Any] = {
        "model": start(model_seed=99).state_dict()["model"],
        "optimizer": {},
        "epoch": 0,
        "step": 0,
        "step_in_epoch": 0,
        "losses": torch.zeros_like(state["losses"]),
        "correct": torch.zeros_like(state["correct"]),
        "optimizer_name": "",
        "seed": 1,
        "batch_size": 1,
        "train_images": "",
        "conditions": {},
    }
    if part == "step_in_epoch":
        state = {**state, "losses": state["losses"][:0], "correct": state["correct"][:0]}
    return {**state, part: blanks[part]}


REFUSED = ("epoch", "optimizer_name", "seed", "batch_size", "train_images", "conditions")


@pytest.mark.parametrize("part", REFUSED)
def test_a_part_of_another_course_is_refused(part: str) -> None:
    states, _, _ = states_and_end()
    with pytest.raises(ValueError, match=part.removesuffix("_name")):
        start().load_state_dict(blanked(part, states[MIDDLE]))


@pytest.mark.parametrize("part", sorted(PARTS.keys() - {"elapsed_s", *REFUSED}))
def test_a_part_that_was_not_saved_changes_the_result(part: str) -> None:
    states, end, reports = states_and_end()
    resumed = start()
    resumed.load_state_dict(blanked(part, states[MIDDLE]))
    rest = list(resumed.epochs())
    end_differs = not is_same_state(resumed.state_dict(), end.state_dict())
    assert end_differs or list(map(numbers, rest)) != list(map(numbers, reports[1:]))


def test_every_tensor_of_model_and_optimizer_matters() -> None:
    states, end, _ = states_and_end()
    model_names = list(states[MIDDLE]["model"])
    places = [("model", name) for name in model_names]
    places += [(index, part) for index, parts in states[MIDDLE]["optimizer"].items() for part in parts]
    assert len(places) == len(model_names) + 6
    for outer, inner in places:
        state = through_file(states[MIDDLE])
        holder = state["model"] if outer == "model" else state["optimizer"][outer]
        holder[inner] = holder[inner] + 1
        resumed = start()
        resumed.load_state_dict(state)
        list(resumed.steps())
        assert not is_same_state(resumed.state_dict(), end.state_dict())


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
