"""What the loop reports after every step and every epoch."""

from dataclasses import dataclass

from fisherkit.conditions import EpochConditions
from fisherkit.training.gradient_norms import GradientNorms


@dataclass(frozen=True)
class EpochReport:
    """One finished epoch.

    `epoch` counts from 0; `step` is the number of optimiser steps since the start of the run. Training loss
    and accuracy are means over the images as they were trained on (deficits, augmentation, training mode),
    each with the weights of its step; test loss and accuracy are those of the clean test images in evaluation
    mode after the epoch. Losses are in nats, accuracies from 0 to 1. `elapsed_s` is the time spent in training
    and evaluation since the start of the run, over all its sessions, without what was done between the steps.

    `next_epoch` is where training goes on: beyond the following epoch where the phase has ended early, and the number
    of epochs at the end of the run. `fisher_penalty` is the mean of the penalty, without its factor, over the steps
    that computed it (None: none did). `gradient_norms` are those at the start of the epoch, after its events (None:
    not asked for).
    """

    epoch: int
    step: int
    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    lr: float
    weight_decay: float
    conditions: EpochConditions
    images: int
    elapsed_s: float
    next_epoch: int
    fisher_penalty: float | None = None
    gradient_norms: GradientNorms | None = None

    @property
    def skipped_epochs(self) -> int:
        """The epochs that are not run, because the phase has ended early."""
        return self.next_epoch - self.epoch - 1


@dataclass(frozen=True)
class StepReport:
    """One finished optimiser step: the `step`-th of the run, the `step_in_epoch`-th of its epoch, both from 1.

    `report` is there after the last step of an epoch.
    """

    epoch: int
    step: int
    step_in_epoch: int
    steps_in_epoch: int
    report: EpochReport | None = None


class NonFiniteLossError(FloatingPointError):
    """A loss became infinite or NaN, and with the next step the weights do.

    `which` is "training loss", "test loss" or "Fisher penalty"; `where` says what was not finite first: the weights of
    a layer, or its outputs. Empty: not known.
    """

    def __init__(self, which: str, *, epoch: int, step: int, lr: float, where: str = "") -> None:
        self.which, self.epoch, self.step, self.lr, self.where = which, epoch, step, lr, where
        super().__init__(which, epoch, step, lr, where)

    def __str__(self) -> str:
        where = f": {self.where}" if self.where else ""
        return (
            f"{self.which} became infinite or NaN at step {self.step}, in epoch {self.epoch + 1}{where}. "
            f"The learning rate there was {self.lr:g}: try a lower lr."
        )
