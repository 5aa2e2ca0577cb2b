"""Removal: a deficit from the start until t0, then the same number of clean epochs for every t0.

Achille, Rovere, Soatto, Critical Learning Periods in Deep Networks (ICLR 2019).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from fisherkit.studies.arms import PlannedArm, Study
from fisherkit.studies.protocols.base import (
    StudyOptions,
    for_each_seed,
    merged,
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
    """Deficit in [0, t0), then `clean_epochs` without it, for each t0, deficit and learning-rate arm.

    Learning-rate arms: `not-reset`, the schedule follows the epochs of the run (the paper's; late removals then
    learn at a lower rate); `reset`, the schedule begins anew when the deficit ends; `restart`, it does so then and
    three times more, evenly over the clean epochs; `constant`, the rate 0.001 throughout. The control of each
    learning-rate arm is its t0 = 0.

    Raises:
        ValueError: A deficit has a window, or a learning-rate arm is not one of those.
    """
    check_names(deficits)
    for lr_arm in lr_arms:
        if lr_arm not in LR_ARMS:
            raise ValueError(f"lr_arm must be one of {', '.join(LR_ARMS)}; got {lr_arm!r}.")
    run = scaled_run(options)
    clean = options.epochs(options.clean_epochs or CLEAN_EPOCHS)
    times = tuple(dict.fromkeys(options.epochs(t0) for t0 in options.whole_arms(T0)))
    arms = []
    for lr_arm in lr_arms:
        suffix = "" if len(lr_arms) == 1 else f", lr {lr_arm}"
        for deficit in deficits:
            for t0 in times if times[0] == 0 else (0, *times):
                windows = {"deficit": (window_text(deficit, 0, t0),)} if t0 else {}
                arms.append(
                    PlannedArm(
                        label=f"{deficit} until epoch {t0}{suffix}" if t0 else f"control{suffix}",
                        group=f"{deficit}{suffix}" if t0 else f"control{suffix}",
                        value=float(t0),
                        runs=for_each_seed(
                            options, with_conditions(_at_rate(run, lr_arm, t0, clean), **windows), epochs=t0 + clean
                        ),
                        control=t0 == 0,
                    )
                )
    asked = options.record(deficits=list(deficits), lr_arms=list(lr_arms), clean_epochs_run=clean)
    return Study("removal", "deficit removed at epoch", merged(arms), asked)


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
    """Deficits whose windows a protocol gives are names, with arguments or without."""
    if not deficits:
        raise ValueError("deficit must be given at least once, for example --deficit blur.")
    for deficit in deficits:
        if "-" in deficit.rpartition(")")[2]:
            raise ValueError(f"deficit must have no window here, for the study gives it; got {deficit!r}.")
