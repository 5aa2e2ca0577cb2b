"""How to train: the choices that stay the same through a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fisherkit.training.penalty import FisherPenalty
from fisherkit.training.schedules import Schedule, parse_schedule

OPTIMIZERS: tuple[str, ...] = ("sgd", "adam")
PRECISIONS: tuple[str, ...] = ("fp32", "bf16")
ON_NONFINITE: tuple[str, ...] = ("stop", "continue")
LARGEST_LR = 1e30  # Adam divides it by 1 - beta, and the quotient must be a float32


@dataclass(frozen=True)
class TrainingOptions:
    """The choices that stay the same through a run; what changes with time is in `Conditions`.

    `momentum` is SGD's momentum (without dampening or Nesterov) and Adam's first beta. `precision` bf16 runs
    the forward pass, in training and evaluation, under autocast; parameters and optimizer stay in fp32.
    `channels_last` stores 4-d parameters, and images for a model that has some, in that layout, which changes speed and
    rounding only.
    With `refresh_batchnorm` every evaluation first takes batch-norm statistics anew over the clean training
    images, as the papers' later code does; the training itself does not see them.

    `fisher_penalty` ("0.1:10") is a term of the loss: see `FisherPenalty`. With `stop_accuracy` a phase, a stretch of
    epochs in which no `fraction` starts or stops, ends after the first epoch whose training accuracy reaches it:
    training goes on at the first epoch of the next phase, or ends after the last. Epochs keep their numbers, so that
    windows and learning rate are those of the schedule. With `gradient_norms` the loss gradient on old and new images
    is measured at the start of every epoch of a phase that has images which the phase before had not. `on_nonfinite`
    says whether a loss that becomes infinite or NaN ends the training with an error ("stop") or is only noted.

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
    fisher_penalty: str | None = None
    stop_accuracy: float | None = None
    gradient_norms: bool = False
    on_nonfinite: str = "stop"

    def __post_init__(self) -> None:
        _check_whole("epochs", self.epochs, least=1)
        _check_whole("batch_size", self.batch_size, least=1)
        _check_whole("seed", self.seed, least=0)
        _check_choice("optimizer", self.optimizer, OPTIMIZERS)
        _check_choice("precision", self.precision, PRECISIONS)
        _check_choice("on_nonfinite", self.on_nonfinite, ON_NONFINITE)
        if not (_is_number(self.lr) and 0 < self.lr <= LARGEST_LR):
            raise ValueError(f"lr must be a number above 0 and at most {LARGEST_LR:g}; got {self.lr!r}.")
        if not (_is_number(self.momentum) and 0 <= self.momentum < 1):
            raise ValueError(f"momentum must be at least 0 and below 1; got {self.momentum!r}.")
        parse_schedule(self.lr_schedule)
        if self.fisher_penalty is not None:
            FisherPenalty.parse(self.fisher_penalty)
        if self.stop_accuracy is not None and not (_is_number(self.stop_accuracy) and 0 < self.stop_accuracy <= 1):
            raise ValueError(f"stop_accuracy must be above 0 and at most 1; got {self.stop_accuracy!r}.")

    @property
    def schedule(self) -> Schedule:
        """The learning-rate schedule that `lr_schedule` names."""
        return parse_schedule(self.lr_schedule)

    @property
    def penalty(self) -> FisherPenalty | None:
        """The penalty that `fisher_penalty` names."""
        return None if self.fisher_penalty is None else FisherPenalty.parse(self.fisher_penalty)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_whole(name: str, value: Any, *, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be a whole number >= {least}; got {value!r}.")


def _check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}; got {value!r}.")
