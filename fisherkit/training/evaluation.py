"""Loss and accuracy on clean images, with the batch-norm statistics as they are or taken anew."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fisherkit.images.image_set import ImageSet
from fisherkit.training.batches import network_input

EVALUATION_BATCH = 256


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context of a forward pass: bfloat16 autocast for bf16, none for fp32 even inside another autocast."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Every module in evaluation mode; afterwards each as it was."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@torch.no_grad()
def evaluate(
    model: nn.Module, images: ImageSet, *, precision: str = "fp32", channels_last: bool = False
) -> tuple[float, float]:
    """Mean cross-entropy in nats and accuracy over all images, in evaluation mode; sums in float64.

    bf16 evaluates as bf16 trains: the network under autocast, the loss in fp32.
    """
    device = images.images.device
    loss = torch.zeros((), dtype=torch.float64, device=device)
    correct = torch.zeros((), dtype=torch.int64, device=device)
    with evaluation_mode(model):
        parts = zip(images.images.split(EVALUATION_BATCH), images.labels.split(EVALUATION_BATCH), strict=True)
        for pixels, labels in parts:
            with autocast(device, precision):
                logits = model(network_input(pixels, images, channels_last=channels_last))
            loss += F.cross_entropy(checked_logits(logits, images).float(), labels, reduction="none").double().sum()
            correct += (logits.argmax(1) == labels).sum()
    return float(loss) / len(images), int(correct) / len(images)


def checked_logits(logits: Any, images: ImageSet) -> Float[Tensor, "images classes"]:
    """What the model gave, if it is a logit for each image and class."""
    classes = len(images.classes)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or logits.shape[1] != classes:
        got = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        raise ValueError(
            f"model must give [images, {classes}] logits for the {classes} classes of {images.name}; got {got}."
        )
    return logits


@contextmanager
def refreshed_batchnorm(model: nn.Module, inputs: Iterable[Tensor], *, precision: str = "fp32") -> Iterator[None]:
    """Batch-norm statistics of these inputs while the context lasts; afterwards all is as it was.

    Running mean and variance become the means of the batches' (unbiased) statistics, weighted by their number
    of images. Only batch-norm layers are in training mode meanwhile: no dropout.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, _BatchNorm) and layer.running_mean is not None]
    saved = [(layer, layer.momentum, [buffer.clone() for buffer in layer.buffers(recurse=False)]) for layer in layers]
    try:
        with evaluation_mode(model):
            _gather_statistics(model, layers, inputs, precision)
        yield
    finally:
        for layer, momentum, buffers in saved:
            layer.momentum = momentum
            for buffer, values in zip(layer.buffers(recurse=False), buffers, strict=True):
                buffer.copy_(values)


@torch.no_grad()
def _gather_statistics(model: nn.Module, layers: list[_BatchNorm], inputs: Iterable[Tensor], precision: str) -> None:
    for layer in layers:
        layer.reset_running_stats()
        layer.train()
    seen = 0
    for batch in inputs:
        seen += len(batch)
        for layer in layers:
            layer.momentum = len(batch) / seen  # running <- running + (batch's - running) x its share
        with autocast(batch.device, precision):
            model(batch)
