"""Warm start: a part of the training images first, then all of them; against a fresh start and shrink-perturb.

Ash, Adams, On Warm-Starting Neural Network Training (NeurIPS 2020).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from fisherkit.conditions import ShrinkPerturb
from fisherkit.images.catalogue import source_named
from fisherkit.studies.arms import PlannedArm, Study
from fisherkit.studies.protocols.base import (
    StudyOptions,
    for_each_seed,
    given_options,
    once_each,
    scaled_run,
    with_conditions,
)
from fisherkit.studies.protocols.grids import grid_of, numbers
from fisherkit.training.batches import used_images
from fisherkit.training.schedules import Constant, parse_schedule

EPOCHS = 350  # of each phase [memory]; upper bounds with `stop_accuracy`
LAMBDAS = (0.0, 0.2, 0.4, 0.6, 0.8)
NOISES = (0.1,)  # as in the authors' code [read]
MOST_ROUNDS = 1000
# as in the authors' code [read]: no regularization, one learning rate throughout
SETTINGS: Mapping[str, Any] = {
    "lr": 0.001,
    "lr_schedule": "constant",
    "weight_decay": ("0",),
    "augment": ("none",),
}
MOMENTUM = 0.0  # of SGD; Adam has its own betas


def warm_start(
    options: StudyOptions,
    *,
    share: float = 0.5,
    warm_epochs: int = EPOCHS,
    online: int | None = None,
    noises: Sequence[float] = NOISES,
    batch_sizes: Sequence[int] = (),
    lrs: Sequence[float] = (),
) -> Study:
    """`share` of the training images for `warm_epochs`, then all of them for `clean_epochs` (350).

    Warm start: training simply goes on. Shrink-perturb, for each lambda (the arms; `none` leaves them out) and noise:
    theta <- lambda theta + noise theta_fresh at the switch. Fresh start, the control: all images from scratch for
    `clean_epochs`, as many as the others see of all images, so that the warm start has trained longer, never shorter.
    All of it for every batch size and learning rate. A learning rate that is not constant starts anew at the switch.

    With `online` = n the images come in n at a time: round k trains on k n images, for `clean_epochs` each, and the
    network goes on, or is shrunk and perturbed, at the start of every round; `share` and `warm_epochs` have no part in
    it. The fresh start is that of the last round, on all images.

    Unless the run's options say otherwise: learning rate 0.001, no momentum with SGD, no augmentation, no weight decay,
    gradient norms on old and new images. The authors' rules are run options: `stop_accuracy` 0.99 and `held_out` 1/3;
    with the former all lengths are upper bounds, for a phase ends once its images are learned.

    Raises:
        ValueError: A value is out of range, or also among the run's options; the message names it.
    """
    given = given_options(options.run)
    if "fraction" in given:
        raise ValueError("fraction must be left out of the run's options, for the study gives it. Use --share.")
    once_each("noise", noises)
    lambdas, plan = _lambdas(options), _plan(options, given, share=share, warm_epochs=warm_epochs, online=online)
    run = scaled_run(options, {**_settings(given), **given})
    sizes = grid_of("batch_sizes", batch_sizes, given, option="batch_size")
    arms = []
    for batch, lr in product(sizes, grid_of("lrs", lrs, given, option="lr")):
        more = given_options({"batch_size": batch, "lr": lr})
        suffix = "".join(f", {name.removesuffix('_size')} {value:g}" for name, value in more.items())
        arms += _arms(options, {**run, **more}, plan, lambdas=lambdas, noises=noises, suffix=suffix)
    asked = options.record(
        **({"share": share, "warm_epochs": warm_epochs} if online is None else {"online": online}),
        noises=list(noises),
        batch_sizes=list(batch_sizes),
        lrs=list(lrs),
        fractions=list(plan.fractions),
        switches_run=list(plan.switches),
        clean_epochs_run=plan.last,
        epochs_run=plan.epochs,
    )
    return Study("warm-start", "lambda", tuple(arms), asked)


@dataclass(frozen=True)
class _Plan:
    """The fractions of the phases before the last, on all images; where each phase after the first starts; epochs of
    the last, as they are run."""

    fractions: tuple[float, ...]
    switches: tuple[int, ...]
    last: int

    @property
    def epochs(self) -> int:
        """Of a whole run."""
        return self.switches[-1] + self.last

    @property
    def windows(self) -> tuple[str, ...]:
        """The fractions as conditions."""
        starts = (0, *self.switches)
        stops = zip(self.fractions, starts, self.switches, strict=False)
        return tuple(f"{fraction:.9g}:{start}-{stop}" for fraction, start, stop in stops)


def _plan(
    options: StudyOptions, given: Mapping[str, Any], *, share: float, warm_epochs: int, online: int | None
) -> _Plan:
    last = options.epochs(options.clean_epochs or EPOCHS)
    if online is None:
        if not 0 < share < 1:
            raise ValueError(f"share must be above 0 and below 1, of the training images; got {share!r}.")
        if warm_epochs < 1:
            raise ValueError(f"warm_epochs must be a whole number >= 1; got {warm_epochs!r}.")
        return _Plan((share,), (options.epochs(warm_epochs),), last)
    images = _training_images(given)
    if not 1 <= online < images:
        raise ValueError(f"online must be a number of images, 1 to {images - 1} of the {images}; got {online!r}.")
    rounds = math.ceil(images / online)
    if rounds > MOST_ROUNDS:
        raise ValueError(f"online must make at most {MOST_ROUNDS} rounds of the {images} images; got {online}.")
    fractions = tuple(k * online / images for k in range(1, rounds))
    return _Plan(fractions, tuple(k * last for k in range(1, rounds)), last)


def _training_images(given: Mapping[str, Any]) -> int:
    """How many images the runs train on."""
    if "train_images" in given:
        return int(given["train_images"])
    images = source_named(given.get("data", "fashion-mini")).train_images
    return images - used_images(images, given["held_out"]) if "held_out" in given else images


def _settings(given: Mapping[str, Any]) -> dict[str, Any]:
    sgd = given.get("optimizer", "sgd") == "sgd"
    return {**SETTINGS, "gradient_norms": True, **({"momentum": MOMENTUM} if sgd else {})}


def _lambdas(options: StudyOptions) -> tuple[float, ...]:
    if options.arms == ("none",):
        return ()
    return numbers("arms", "lambdas", options.arms or tuple(map(str, LAMBDAS)), low=0, high=1)


def _arms(
    options: StudyOptions,
    run: Mapping[str, Any],
    plan: _Plan,
    *,
    lambdas: Sequence[float],
    noises: Sequence[float],
    suffix: str,
) -> list[PlannedArm]:
    """Those of one batch size and learning rate: `suffix` says which."""
    constant = isinstance(parse_schedule(run["lr_schedule"]), Constant)
    restarts = () if constant else tuple(f"lr_restart:{switch}" for switch in plan.switches)
    warm = with_conditions(run, fraction=plan.windows, event=restarts)

    def arm(name: str, group: str, value: float | None, settings: Mapping[str, Any]) -> PlannedArm:
        runs = for_each_seed(options, settings, epochs=plan.epochs)
        return PlannedArm(name + suffix, group + suffix, value, runs)

    alone = {name: value for name, value in run.items() if name != "gradient_norms"}  # no images are new to it
    fresh = for_each_seed(options, alone, epochs=plan.last)
    arms = [
        PlannedArm(f"fresh start{suffix}", f"fresh start{suffix}", None, fresh, control=True),
        arm("warm start", "warm start", None, warm),
    ]
    for noise, scale in product(noises, lambdas):
        events = tuple(str(ShrinkPerturb(switch, scale, float(noise))) for switch in plan.switches)
        more = "" if len(noises) == 1 else f" (noise {noise:g})"
        name = f"shrink-perturb {scale:g}{more}"
        arms.append(arm(name, f"shrink-perturb{more}", scale, with_conditions(warm, event=events)))
    return arms
