"""What the loop reports after every step and every epoch."""

from dataclasses import dataclass

from fisherkit.conditions import EpochConditions


@dataclass(frozen=True)
class EpochReport:
    """One finished epoch.

    `epoch` counts from 0; `step` is the number of optimiser steps since the start of the run. Training loss
    and accuracy are means over the images as they were trained on (deficits, augmentation, training mode),
    each with the weights of its step; test loss and accuracy are those of the clean test images in evaluation
    mode after the epoch. Losses are in nats, accuracies from 0 to 1. `elapsed_s` is the time spent in training
    and evaluation since the start of the run, over all its sessions, without what was done between the steps.
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
    """The loss became infinite or NaN: the weights are lost, and training cannot go on from them."""

    def __init__(self, which: str, *, epoch: int, step: int, lr: float) -> None:
        self.which, self.epoch, self.step, self.lr = which, epoch, step, lr
        super().__init__(which, epoch, step, lr)

    def __str__(self) -> str:
        return (
            f"{self.which} loss became infinite or NaN in epoch {self.epoch} at step {self.step}. "
            f"The learning rate there was {self.lr:g}: try a lower lr."
        )
