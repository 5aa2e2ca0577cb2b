"""What is checked and set up before the first step of a training."""

from collections.abc import Callable

import torch
from torch import nn

from fisherkit.conditions import Conditions, ShrinkPerturb
from fisherkit.images.image_set import ImageSet
from fisherkit.training.batches import used_images
from fisherkit.training.options import TrainingOptions


def check_images(train: ImageSet, test: ImageSet) -> None:
    """Raise ValueError unless there is something to learn, which can be evaluated on the test images."""
    if len(train.classes) < 2:
        raise ValueError(
            f"train must have at least 2 classes, or there is nothing to learn; {train.name} has {len(train.classes)}."
        )
    for what, wanted, got in (
        ("image shape", tuple(train.images.shape[1:]), tuple(test.images.shape[1:])),
        ("classes", train.classes, test.classes),
        ("mean and std", (train.mean, train.std), (test.mean, test.std)),
    ):
        if wanted != got:
            raise ValueError(f"test must have the {what} of train, {wanted!r}; got {got!r}.")


def check_conditions(
    conditions: Conditions,
    train: ImageSet,
    options: TrainingOptions,
    fresh_model: Callable[[int], nn.Module] | None,
) -> None:
    """Raise ValueError unless every condition can be imposed on this training."""
    conditions.check(train)
    check_phases(conditions, options)
    for fraction in conditions.fraction:
        used_images(len(train), fraction.value)
    for event in conditions.events:
        if event.epoch >= options.epochs:
            raise ValueError(
                f"event {str(event)!r} must be at an epoch before the end of training, epoch {options.epochs}; "
                f"got {event.epoch}. Train for more epochs, or leave the event out."
            )
        if isinstance(event, ShrinkPerturb) and fresh_model is None:
            raise ValueError(
                f"fresh_model must be given for the event {str(event)!r}; got None. "
                "Give a function seed -> freshly initialised model."
            )


def check_phases(conditions: Conditions, options: TrainingOptions) -> None:
    """Raise ValueError where phases that end early would skip an event, or where no phase has new images."""
    for event in conditions.events if options.stop_accuracy is not None else ():
        if isinstance(event, ShrinkPerturb) and event.epoch not in conditions.phase_starts:
            starts = ", ".join(map(str, conditions.phase_starts))
            raise ValueError(
                f"event {str(event)!r} must be at the first epoch of a phase ({starts}) with stop_accuracy: a phase "
                "that ends early would skip it. Move it to where a fraction starts or stops."
            )
    if options.gradient_norms and not any(_has_new_images(conditions, epoch) for epoch in range(options.epochs)):
        fractions = " ".join(str(fraction) for fraction in conditions.fraction) or "none"
        raise ValueError(
            "gradient_norms needs images that come in during the training: a fraction that grows or ends before "
            f"epoch {options.epochs}, for example 0.5:0-{max(options.epochs // 2, 1)}; got {fractions}."
        )


def _has_new_images(conditions: Conditions, epoch: int) -> bool:
    """Whether the epoch's phase has images that the phase before had not."""
    before = conditions.fraction_before(epoch)
    return before is not None and before < conditions.at(epoch).fraction


def make_optimizer(model: nn.Module, options: TrainingOptions) -> torch.optim.Optimizer:
    """SGD or Adam over the parameters that require gradients; lr and weight decay are set every epoch."""
    parameters = trained_parameters(model)
    if not parameters:
        raise ValueError("model must have a parameter with requires_grad=True; got none.")
    if options.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=options.lr, betas=(options.momentum, 0.999))
    return torch.optim.SGD(parameters, lr=options.lr, momentum=options.momentum)


def trained_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Those that require gradients."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def lay_out_channels_last(model: nn.Module) -> bool:
    """Store every 4-d parameter in channels_last layout; values and shapes stay. Whether there is one."""
    # not Module.to(memory_format=...): that refuses a model with a 5-d parameter
    parameters = [parameter for parameter in model.parameters() if parameter.ndim == 4]
    for parameter in parameters:
        parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return bool(parameters)
