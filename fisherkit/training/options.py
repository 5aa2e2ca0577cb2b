"""How to train: the choices that stay the same through a run."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fisherkit.training.schedules import Schedule, parse_schedule

OPTIMIZERS: tuple[str, ...] = ("sgd", "adam")
PRECISIONS: tuple[str, ...] = ("fp32", "bf16")


@dataclass(frozen=True)
class TrainingOptions:
    """The choices that stay the same through a run; what changes with time is in `Conditions`.

    `momentum` is SGD's momentum (without dampening or Nesterov) and Adam's first beta. `precision` bf16 runs
    the forward pass, in training and evaluation, under autocast; parameters and optimizer stay in fp32.
    `channels_last` stores images and 4-d parameters in that layout, which changes speed and rounding only.
    With `refresh_batchnorm` every evaluation first takes batch-norm statistics anew over the clean training
    images, as the papers' later code does; the training itself does not see them.

    Raises:
        ValueError: A value is out of its range; the message names it.
    """

    epochs: int
    batch_size: int = 128
    optimizer: str = "sgd"
    lr: float = 0.05
    lr_schedule: str = "exponential(0.97)"
    momentum: float = 0.9
    precision: str = "fp32"
    channels_last: bool = True
    refresh_batchnorm: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        _check_whole("epochs", self.epochs, least=1)
        _check_whole("batch_size", self.batch_size, least=1)
        _check_whole("seed", self.seed, least=0)
        _check_choice("optimizer", self.optimizer, OPTIMIZERS)
        _check_choice("precision", self.precision, PRECISIONS)
        if not (_is_number(self.lr) and 0 < self.lr < math.inf):
            raise ValueError(f"lr must be a finite number above 0; got {self.lr!r}.")
        if not (_is_number(self.momentum) and 0 <= self.momentum < 1):
            raise ValueError(f"momentum must be at least 0 and below 1; got {self.momentum!r}.")
        parse_schedule(self.lr_schedule)

    @property
    def schedule(self) -> Schedule:
        """The learning-rate schedule that `lr_schedule` names."""
        return parse_schedule(self.lr_schedule)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_whole(name: str, value: Any, *, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be a whole number >= {least}; got {value!r}.")


def _check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}; got {value!r}.")
