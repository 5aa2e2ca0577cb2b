"""Removal: a deficit from the start until t0, then the same number of clean epochs for every t0.

Achille, Rovere, Soatto, Critical Learning Periods in Deep Networks (ICLR 2019).
"""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from fisherkit.conditions import Conditions
from fisherkit.conditions.grammar import split_term
from fisherkit.conditions.parse import DEFICITS
from fisherkit.studies.arms import PlannedArm, Study
from fisherkit.studies.protocols.base import (
    StudyOptions,
    for_each_seed,
    merged,
    once_each,
    scaled_run,
    window_text,
    with_conditions,
)

T0 = (0, 20, 40, 60, 80, 100, 120, 140)
CLEAN_EPOCHS = 160  # after the deficit, the same for every arm
CONSTANT_LR = 0.001  # the paper's arm of constant learning rate
RESTARTS = 4  # of the arm `restart`, spread over the clean epochs; the first when the deficit ends
LR_ARMS = ("not-reset", "reset", "constant", "restart")


def removal(
    options: StudyOptions, *, deficits: Sequence[str] = ("blur",), lr_arms: Sequence[str] = ("not-reset",)
) -> Study:
    """Deficit in [0, t0), then `clean_epochs` (160) without it, for each t0 (the arms), deficit and learning-rate arm.

    Learning-rate arms: `not-reset`, the schedule follows the epochs of the run (the paper's; late removals then
    learn at a lower rate); `reset`, the schedule begins anew when the deficit ends; `restart`, it does so then and
    three times more, evenly over the clean epochs; `constant`, the rate 0.001 throughout, whatever the run's options
    say. The control of each learning-rate arm is its t0 = 0, added where the arms do not have it.

    Raises:
        ValueError: A deficit has a window or is none, or a learning-rate arm is not one of those.
    """
    check_names(deficits)
    once_each("lr_arm", lr_arms)
    for lr_arm in lr_arms:
        if lr_arm not in LR_ARMS:
            raise ValueError(f"lr_arm must be one of {', '.join(LR_ARMS)}; got {lr_arm!r}.")
    run, clean = scaled_run(options), options.epochs(options.clean_epochs or CLEAN_EPOCHS)
    times = [options.epochs(t0) for t0 in options.whole_arms(T0) if t0]

    def arm(name: str, deficit: str, t0: int, lr_arm: str) -> PlannedArm:
        suffix = "" if len(lr_arms) == 1 else f", lr {lr_arm}"
        windows = {"deficit": (window_text(deficit, 0, t0),)} if t0 else {}
        settings = with_conditions(_at_rate(run, lr_arm, t0, clean), **windows)
        runs = for_each_seed(options, settings, epochs=t0 + clean)
        group = f"{deficit}{suffix}" if t0 else name + suffix
        return PlannedArm(name + suffix, group, float(t0), runs, control=t0 == 0)

    notes: list[str] = []
    arms = []
    for lr_arm in lr_arms:
        arms.append(arm("control", "", 0, lr_arm))
        arms += [arm(f"{name} until epoch {t0}", name, t0, lr_arm) for name, t0 in product(deficits, times)]
    distinct = merged(arms, notice=notes.append)
    asked = options.record(deficits=list(deficits), lr_arms=list(lr_arms), clean_epochs_run=clean, notes=notes)
    return Study("removal", "deficit removed at epoch", distinct, asked)


def _at_rate(run: Mapping[str, Any], lr_arm: str, t0: int, clean: int) -> dict[str, Any]:
    if lr_arm == "constant":
        return {**run, "lr": CONSTANT_LR, "lr_schedule": "constant"}
    if lr_arm == "reset":
        return with_conditions(run, event=(f"lr_restart:{t0}",)) if t0 else dict(run)
    if lr_arm == "restart":
        starts = dict.fromkeys(t0 + clean * k // RESTARTS for k in range(RESTARTS))
        return with_conditions(run, event=tuple(f"lr_restart:{start}" for start in starts if start))
    return dict(run)


def check_names(deficits: Sequence[str]) -> None:
    """Deficits whose windows a protocol gives are names, with arguments or without, each once."""
    once_each("deficit", deficits)
    for deficit in deficits:
        Conditions.parse(deficits=(deficit,))
        if split_term(deficit, known=DEFICITS).place is not None:
            raise ValueError(f"deficit must have no window here, for the study gives it; got {deficit!r}.")
