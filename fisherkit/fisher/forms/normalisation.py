"""Closed forms of per-image gradients: normalisation layers, y = weight * xhat + bias.

grad weight = sum over positions of g * xhat, grad bias = sum over positions of g, both as small as the
parameters themselves, so they are built and squared. The input is kept, which autograd keeps anyway, and
normalised again when the gradient arrives: a normalised copy would double what a layer holds.
"""

from collections.abc import Callable, Iterator
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..layers import Layer
from .form import Form, SquaredNorms, squares


def batch_norm_blocks(layer: Layer, a: Tensor, g: Tensor) -> Iterator[Tensor]:
    """BatchNorm with its running statistics: xhat = (a - mean) / sqrt(var + eps) per channel (dimension 1)."""
    module = cast(_BatchNorm, layer.module)
    assert module.running_mean is not None
    assert module.running_var is not None
    if "weight" in layer.parameters:
        a = F.batch_norm(a, module.running_mean, module.running_var, training=False, eps=module.eps)
        yield (g * a).flatten(2).sum(2) if g.dim() > 2 else g * a
    if "bias" in layer.parameters:
        yield g.flatten(2).sum(2) if g.dim() > 2 else g


def layer_norm_blocks(layer: Layer, a: Tensor, g: Tensor) -> Iterator[Tensor]:
    """LayerNorm over its last dimensions; positions are the dimensions between them and the images."""
    module = layer.module
    assert isinstance(module, nn.LayerNorm)
    shape = list(module.normalized_shape)
    g = g.reshape(len(g), -1, *shape)  # [images, positions, *normalised]
    if "weight" in layer.parameters:
        yield (g * F.layer_norm(a, shape, eps=module.eps).view_as(g)).sum(1)
    if "bias" in layer.parameters:
        yield g.sum(1)


def built(blocks: Callable[[Layer, Tensor, Tensor], Iterator[Tensor]]) -> Form:
    """The form that builds the gradient and squares it."""

    def norms(layer: Layer, a: Tensor) -> SquaredNorms:
        return lambda g: torch.stack([squares(block) for block in blocks(layer, a, g)]).sum(0)

    return Form(norms, blocks)


BATCH_NORM, LAYER_NORM = built(batch_norm_blocks), built(layer_norm_blocks)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
