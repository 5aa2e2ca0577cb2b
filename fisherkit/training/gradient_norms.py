"""How large the loss gradient is on images trained on before, and on those that are new.

Ash and Adams, On Warm-Starting Neural Network Training (NeurIPS 2020): after a warm start the gradients of new images
are much larger than those of the old ones.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Int64
from torch import Tensor, nn

from fisherkit.conditions import Conditions, EpochConditions
from fisherkit.images.image_set import ImageSet
from fisherkit.training.batches import EpochBatches, batch_bounds, network_input, old_and_new_images
from fisherkit.training.evaluation import EVALUATION_BATCH, autocast, evaluation_mode, refreshed_batchnorm

MOST_IMAGES = 1000  # of each group


class GradientNorms(NamedTuple):
    """The norm of the mean loss gradient on the old and on the new images, in nats; NaN without new images."""

    old: float
    new: float


NO_NEW_IMAGES = GradientNorms(math.nan, math.nan)


def gradient_norms(
    model: nn.Module,
    images: ImageSet,
    old: Int64[Tensor, "old"],
    new: Int64[Tensor, "new"],
    *,
    channels_last: bool = False,
) -> GradientNorms:
    """||(1/n) sum_i grad_theta loss_i|| over the trained parameters, for the n images at each of the two indices.

    In fp32 and evaluation mode: no dropout, and batch-norm with the statistics of all these images, taken anew, for
    those that the network has may be of a network that is no more (as after `shrink_perturb`). Sums in float64. The
    model, its gradients among it, is left as it was.
    """
    both = _parts(images.select(torch.cat([old, new])))
    inputs = (network_input(part.images, part, channels_last=channels_last) for part in both)
    with refreshed_batchnorm(model, inputs), evaluation_mode(model):
        norms = (_norm(model, images.select(indices), channels_last=channels_last) for indices in (old, new))
        return GradientNorms(*norms)


def norms_at_start(
    model: nn.Module,
    batches: EpochBatches,
    conditions: Conditions,
    plan: EpochConditions,
    *,
    labels: Int64[Tensor, "images"],
    seed: int,
) -> GradientNorms:
    """Those of an epoch that is about to begin, on up to `MOST_IMAGES` images of each group, classes in proportion.

    New are the images that the epoch uses and the phase before did not. They are under the deficits of the epoch, and
    not augmented; `labels` are those without a deficit, by which fractions are chosen.
    """
    before = conditions.fraction_before(plan.epoch)
    if before is None or before >= plan.fraction:
        return NO_NEW_IMAGES
    images = batches.images
    classes = len(images.classes)
    old, new = old_and_new_images(labels.cpu(), before=before, now=plan.fraction, classes=classes, seed=seed)
    if len(new) == 0:
        return NO_NEW_IMAGES
    old, new = (group[:MOST_IMAGES].to(images.labels.device) for group in (old, new))
    return gradient_norms(model, images, old, new, channels_last=batches.channels_last)


def _norm(model: nn.Module, images: ImageSet, *, channels_last: bool) -> float:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    sums = [
        torch.zeros_like(parameter, dtype=torch.promote_types(parameter.dtype, torch.float64))
        for parameter in parameters
    ]
    for part in _parts(images):
        with torch.enable_grad(), autocast(part.images.device, "fp32"):
            logits = model(network_input(part.images, part, channels_last=channels_last))
            loss = F.cross_entropy(logits.float(), part.labels, reduction="sum")
            _add(sums, torch.autograd.grad(loss, parameters, allow_unused=True))
    return float(torch.stack([total.abs().square().sum() for total in sums]).sum().sqrt()) / len(images)


def _add(sums: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
    for total, gradient in zip(sums, gradients, strict=True):
        if gradient is not None:
            total.add_(gradient)


def _parts(images: ImageSet) -> list[ImageSet]:
    device = images.labels.device
    bounds = batch_bounds(len(images), EVALUATION_BATCH)
    return [images.select(torch.arange(start, stop, device=device)) for start, stop in bounds]
