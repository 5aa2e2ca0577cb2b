"""Per-image gradients of convolutions, one kernel offset at a time: grad W_o = g a_o^T (see convolution.py)."""

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor
from torch.nn.modules.conv import _ConvNd

from ..layers import Layer
from .convolution import padded, windows
from .form import spans


def convolution_blocks(layer: Layer, a: Tensor, g: Tensor) -> Iterator[Tensor]:
    """W [images, groups, outputs, inputs] for each kernel offset, by outputs where it is large; b [images, outputs]."""
    module = cast(_ConvNd, layer.module)
    if "weight" in layer.parameters:
        whole, rows = padded(module, a), by_group(g, module.groups)
        for window in windows(module, tuple(g.shape[2:])):
            view = by_group(whole[(slice(None), slice(None), *window)], module.groups)
            for some in spans(rows.shape[2], len(g) * module.in_channels):
                yield rows[:, :, some] @ view.transpose(2, 3)
    if "bias" in layer.parameters:
        yield g.flatten(2).sum(2)


def by_group(x: Tensor, groups: int) -> Tensor:
    """[images, channels, *sizes] -> [images, groups, channels of a group, positions]."""
    return torch.unflatten(x, 1, (groups, -1)).flatten(3)
