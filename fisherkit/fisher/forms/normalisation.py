"""Closed forms of per-image gradients: normalisation layers, y = weight * xhat + bias.

grad weight = sum over positions of g * xhat, grad bias = sum over positions of g, both as small as the
parameters themselves, so they are built and squared. The input is kept, which autograd keeps anyway, and
normalised again when the gradient arrives: a normalised copy would double what a layer holds.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers import Layer
from .form import Form, SquaredNorms, squares

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)


def batch_norm(module: Any, a: Tensor) -> Tensor:
    """xhat by the running statistics (evaluation mode)."""
    mean, variance = module.running_mean.to(a.dtype), module.running_var.to(a.dtype)
    return F.batch_norm(a, mean, variance, training=False, eps=module.eps)


def instance_norm(module: Any, a: Tensor) -> Tensor:
    """xhat by the statistics of each image and channel, or by running ones where they are tracked."""
    if module.track_running_stats:
        mean, variance = module.running_mean.to(a.dtype), module.running_var.to(a.dtype)
        return F.instance_norm(a, mean, variance, use_input_stats=False, eps=module.eps)
    return F.instance_norm(a, eps=module.eps)


def group_norm(module: Any, a: Tensor) -> Tensor:
    """xhat by the statistics of each image and group of channels."""
    return F.group_norm(a, module.num_groups, eps=module.eps)


def layer_norm(module: Any, a: Tensor) -> Tensor:
    """xhat by the statistics of the last dimensions."""
    return F.layer_norm(a, module.normalized_shape, eps=module.eps)


def rms_norm(module: Any, a: Tensor) -> Tensor:
    """xhat = a / sqrt(mean a^2 + eps) over the last dimensions; eps=None is the machine epsilon."""
    return F.rms_norm(a, module.normalized_shape, eps=module.eps)


def over_channels(xhat: Callable[[Any, Tensor], Tensor]) -> Form:
    """Weight and bias [channels] for inputs [images, channels, *positions]."""

    def blocks(layer: Layer, a: Tensor, g: Tensor) -> Iterator[Tensor]:
        if "weight" in layer.parameters:
            yield xhat(layer.module, a).mul_(g).flatten(2).sum(2) if g.dim() > 2 else xhat(layer.module, a).mul_(g)
        if "bias" in layer.parameters:
            yield g.flatten(2).sum(2) if g.dim() > 2 else g

    return _built(blocks)


def over_features(xhat: Callable[[Any, Tensor], Tensor]) -> Form:
    """Weight and bias [*normalised] for inputs [images, *positions, *normalised]."""

    def blocks(layer: Layer, a: Tensor, g: Tensor) -> Iterator[Tensor]:
        shape: Any = layer.module.normalized_shape
        if "weight" in layer.parameters:
            yield xhat(layer.module, a).mul_(g).reshape(len(g), -1, *shape).sum(1)
        if "bias" in layer.parameters:
            yield g.reshape(len(g), -1, *shape).sum(1)

    return _built(blocks)


def _built(blocks: Callable[[Layer, Tensor, Tensor], Iterator[Tensor]]) -> Form:
    """The form that builds the gradient and squares it."""

    def norms(layer: Layer, a: Tensor) -> SquaredNorms:
        return lambda g: torch.stack([squares(block) for block in blocks(layer, a, g)]).sum(0)

    return Form(norms, blocks)


NORMALISATIONS: dict[type[nn.Module], Form] = {
    **dict.fromkeys(BATCH_NORMS, over_channels(batch_norm)),
    **dict.fromkeys(INSTANCE_NORMS, over_channels(instance_norm)),
    nn.GroupNorm: over_channels(group_norm),
    nn.LayerNorm: over_features(layer_norm),
    nn.RMSNorm: over_features(rms_norm),
}
