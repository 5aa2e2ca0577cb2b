"""A training at which every kind of state is at work, its states after every step, and how they are compared."""

import io
from typing import Any

import torch
from torch import Tensor
from training_cases import dropout_net, training

from fisherkit.training import EpochReport, Training

EVERYTHING = {
    "deficits": ["blur(2):0-2", "noise:1-2", "permute"],
    "augment": ["crop+flip"],
    "weight_decay": ["0.01:1-"],
    "fraction": ["0.9:0-1"],
    "events": ["shrink_perturb(0.5,0.2):1", "lr_restart:1", "lr_scale(0.5):1"],
}
MIDDLE = 8  # steps: in the middle of the second epoch


def start(model_seed: int = 0, **options: Any) -> Training:
    return training(dropout_net, conditions=EVERYTHING, model_seed=model_seed, **options)


def through_file(state: dict[str, Any]) -> dict[str, Any]:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    loaded: dict[str, Any] = torch.load(buffer, weights_only=True)
    return loaded


def states_and_end(**options: Any) -> tuple[list[dict[str, Any]], Training, list[EpochReport]]:
    """The state before the first step and after every step, the finished training, and its reports."""
    made = start(**options)
    states, reports = [through_file(made.state_dict())], []
    for step in made.steps():
        states.append(through_file(made.state_dict()))
        reports += [step.report] if step.report is not None else []
    return states, made, reports


def assert_same_state(state: Any, other: Any, place: str = "state") -> None:
    if isinstance(state, dict):
        assert state.keys() == other.keys(), place
        for key in state.keys() - {"elapsed_s"}:
            assert_same_state(state[key], other[key], f"{place}[{key!r}]")
    elif isinstance(state, list):
        assert len(state) == len(other), place
        for index, (part, its) in enumerate(zip(state, other, strict=True)):
            assert_same_state(part, its, f"{place}[{index}]")
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
