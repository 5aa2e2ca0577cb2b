"""Each part of a checkpoint left out in turn: resuming refuses or comes to another end: no part is there in vain."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import torch
from observers import StopsAfter
from resumable import MIDDLE, is_same_state, start, states_and_end, through_file
from runs import small
from training_cases import numbers

import fisherkit
from fisherkit.errors import RunRefused, UnreadableFile
from fisherkit.recording import from_bytes, to_bytes
from fisherkit.studies import track
from fisherkit.studies.resume import contents
from fisherkit.training import deterministic, newest_checkpoint, save_checkpoint
from fisherkit.training.state import OPTIONAL_PARTS, PARTS

OPTIONS = {"fisher_penalty": "0.1:3:held", "gradient_norms": True}  # so that the optional parts are there
BEFORE_S = 1000.0  # in the state: what a training that began again would not know


@pytest.fixture(autouse=True)
def _deterministic() -> Iterator[None]:
    with deterministic(1):
        yield


@cache
def whole() -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """The state in the middle of the second epoch, the last one, and the reports after it."""
    states, end, reports = states_and_end(**OPTIONS)
    return (
        {**states[MIDDLE], "elapsed_s": BEFORE_S},
        end.state_dict(),
        [repr(numbers(report)) for report in reports[1:]],
    )


def noticed(state: dict[str, Any]) -> bool:
    """Whether a training that goes on from this state refuses it, or comes to another end than the whole one."""
    resumed, (_, end, expected) = start(**OPTIONS), whole()
    try:
        resumed.load_state_dict(through_file(state))
    except ValueError:
        return True
    reports = list(resumed.epochs())
    same = [repr(numbers(report)) for report in reports] == expected and is_same_state(resumed.state_dict(), end)
    return not same or reports[-1].elapsed_s < BEFORE_S


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
        "elapsed_s": 0.0,
        "optimizer_name": "",
        "seed": 1,
        "batch_size": 1,
        "train_images": "",
        "conditions": {},
        "fisher_penalty": "",
        "penalties": {},
        "penalty_gradient": [None] * len(state["penalty_gradient"]),
        "gradient_norms": [0.0, 0.0],
    }
    if part == "step_in_epoch":
        state = {**state, "losses": state["losses"][:0], "correct": state["correct"][:0], "penalties": {}}
    return {**state, part: blanks[part]}


def test_every_part_of_the_state_left_out_is_noticed(publish):
    state, _, _ = whole()
    assert not noticed(state)
    parts = [*PARTS, *OPTIONAL_PARTS]
    assert set(parts) == set(state)
    missing = [part for part in parts if not noticed({name: state[name] for name in parts if name != part})]
    blank = [part for part in parts if not noticed(blanked(part, state))]
    seen = 2 * len(parts) - len(missing) - len(blank)
    publish(
        "4 each part of a training's state left out, and blanked", f"{seen} of {2 * len(parts)} noticed (a resume test)"
    )
    assert (missing, blank) == ([], [])


def test_every_tensor_of_model_and_optimizer_left_out_is_noticed(publish):
    state, _, _ = whole()
    places = [("model", name) for name in state["model"]]
    places += [(index, part) for index, parts in state["optimizer"].items() for part in parts]
    unseen = []
    for outer, inner in places:
        changed = through_file(state)
        holder = changed["model"] if outer == "model" else changed["optimizer"][outer]
        holder[inner] = holder[inner] + 1
        unseen += [] if noticed(changed) else [(outer, inner)]
    seen = len(places) - len(unseen)
    publish("4 each tensor of model and optimizer changed in turn", f"{seen} of {len(places)} noticed")
    assert len(places) == len(state["model"]) + 6
    assert unseen == []


def without(part: str, saved: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in saved.items() if name != part}


def emptied(part: str, saved: dict[str, Any]) -> dict[str, Any]:
    """The checkpoint of a run with a part as it would be had nobody filled it; the training's are above."""
    rows = from_bytes(saved["rows"].numpy().tobytes())
    blank = contents({}, to_bytes(rows.rows(0, 0)), numerics={}, elapsed_s=0.0)
    return {**saved, part: blank[part]}


def run_notices(folder, saved: dict[str, Any], step: int, before: float) -> bool:
    """Whether the run refuses this checkpoint, or its file says that time ran backwards."""
    save_checkpoint(folder, step, saved)
    try:
        track(small(), folder)
    except (RunRefused, UnreadableFile, ValueError):
        return True
    return bool(fisherkit.read(folder / "run.h5").series["elapsed_s"][-1] < before)


@pytest.mark.parametrize("leave_out", [without, emptied])
def test_every_part_of_a_runs_checkpoint_left_out_is_noticed(tmp_path, publish, leave_out):
    unseen, parts = [], ("training", "rows", "numerics", "elapsed_s")
    for part in parts:
        folder = tmp_path / part
        track(small(), folder, observer=StopsAfter(5))
        found = newest_checkpoint(folder)
        assert tuple(found.contents) == parts
        saved = {**found.contents, "elapsed_s": BEFORE_S}
        if not run_notices(folder, leave_out(part, saved), found.step, BEFORE_S):
            unseen.append(part)
    how = "left out" if leave_out is without else "empty"
    publish(f"4 each part of a run's checkpoint {how}", f"{len(parts) - len(unseen)} of {len(parts)} noticed")
    assert unseen == []
