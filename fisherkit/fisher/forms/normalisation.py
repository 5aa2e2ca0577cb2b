"""Closed forms of per-image gradient norms: normalisation layers, y = weight * xhat + bias.

grad weight = sum over positions of g * xhat, grad bias = sum over positions of g, both as small as the
parameters themselves, so they are built and squared.
"""

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..layers import Layer
from .affine import SquaredNorms, squares


def batch_norm(layer: Layer, a: Tensor) -> SquaredNorms:
    """BatchNorm with its running statistics: xhat = (a - mean) / sqrt(var + eps) per channel (dimension 1)."""
    module = cast(_BatchNorm, layer.module)
    assert module.running_mean is not None
    assert module.running_var is not None
    if "weight" in layer.parameters:
        a = F.batch_norm(a, module.running_mean, module.running_var, training=False, eps=module.eps)

    def norms(g: Tensor) -> Tensor:
        total = g.new_zeros(len(g))
        if "weight" in layer.parameters:
            total = total + squares((g * a).flatten(2).sum(2) if g.dim() > 2 else g * a)
        if "bias" in layer.parameters:
            total = total + squares(g.flatten(2).sum(2) if g.dim() > 2 else g)
        return total

    return norms


def layer_norm(layer: Layer, a: Tensor) -> SquaredNorms:
    """LayerNorm over its last dimensions; positions are the dimensions between them and the images."""
    module = layer.module
    assert isinstance(module, nn.LayerNorm)
    shape = list(module.normalized_shape)
    if "weight" in layer.parameters:
        a = F.layer_norm(a, shape, eps=module.eps).reshape(len(a), -1, *shape)

    def norms(g: Tensor) -> Tensor:
        g = g.reshape(len(g), -1, *shape)  # [images, positions, *normalised]
        total = g.new_zeros(len(g))
        if "weight" in layer.parameters:
            total = total + squares((g * a).sum(1))
        if "bias" in layer.parameters:
            total = total + squares(g.sum(1))
        return total

    return norms


BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
