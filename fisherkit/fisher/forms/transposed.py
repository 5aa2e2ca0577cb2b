"""Closed forms of per-image gradients: transposed convolutions of 1, 2 and 3 dimensions.

A transposed convolution is a convolution with input and output gradient in each other's place. With a the input
[groups, inputs, L], g the padded output gradient and g_o [groups, outputs, L] its shifted, strided view for each
kernel offset o:

    grad W_o = a g_o^T,      ||grad W||^2 = sum_o ||a g_o^T||^2                              (direct)
                                          = sum_ll' (a^T a)_ll' (sum_o g_o^T g_o)_ll'        (Gram)

For P positions of the output, multiply-adds are: direct K L I O; Gram P^2 O + K L^2 + L^2 I (all per group).
`output_padding` and `output_size` only make g larger at its end, where no kernel offset reaches.
"""

from collections.abc import Iterator
from math import prod
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from ..layers import Layer
from .convolution import by_group, padded, patch_gram, windows
from .form import Form, SquaredNorms, spans, squares
from .library import weight_gradient_squares

# costs against a multiply-add of `direct` on one CPU core, for maps of 4 to 32 pixels and 3 to 1,024 channels
GRAM_COST = 2.0
LIBRARY_COST = 0.6
LIBRARY_IMAGE = 2e4  # what an image costs


def transposed(layer: Layer, a: Tensor) -> SquaredNorms:
    """The cheapest form for these shapes; the bias's gradient is g summed over positions."""
    module = cast(_ConvTransposeNd, layer.module)
    shared: Tensor | None = None  # a^T a, for every vector

    def norms(g: Tensor) -> Tensor:
        nonlocal shared
        total = g.new_zeros(len(g))
        if "bias" in layer.parameters:
            total = total + squares(g.flatten(2).sum(2))
        if "weight" not in layer.parameters:
            return total
        form = cheapest(module, a, g)
        if form == "gram":
            if shared is None:
                rows = by_group(a, module.groups)
                shared = rows.transpose(2, 3) @ rows
            return total + (patch_gram(module, g, tuple(a.shape[2:])) * shared).flatten(1).sum(1)
        return total + (library if form == "library" else direct)(module, a, g)

    return norms


def cheapest(module: _ConvTransposeNd, a: Tensor, g: Tensor) -> str:
    """`gram`, `direct` or `library`: the smallest count of multiply-adds, weighted by what one costs."""
    inputs, outputs = module.in_channels // module.groups, module.out_channels // module.groups
    kernel, length = prod(module.kernel_size), prod(a.shape[2:])
    work = kernel * length * inputs * outputs
    costs = {
        "gram": GRAM_COST * (prod(g.shape[2:]) ** 2 * outputs + kernel * length**2 + length**2 * inputs),
        "direct": 1.0 * work,
    }
    if a.device.type == "cpu":
        costs["library"] = LIBRARY_COST * work + LIBRARY_IMAGE / module.groups
    return min(costs, key=lambda form: costs[form])


def direct(module: _ConvTransposeNd, a: Tensor, g: Tensor) -> Tensor:
    """||grad W||^2 by one batched matrix product for each kernel offset."""
    return torch.stack([squares(piece) for piece in weight_blocks(module, a, g)]).sum(0)


def library(module: _ConvTransposeNd, a: Tensor, g: Tensor) -> Tensor:
    """||grad W||^2 by the library's weight gradient."""
    padding = cast(tuple[int, ...], module.padding)
    longer = [  # output_padding, or what output_size asked for
        size - (length - 1) * stride + 2 * pad - dilation * (kernel - 1) - 1
        for size, length, stride, pad, dilation, kernel in zip(
            g.shape[2:], a.shape[2:], module.stride, padding, module.dilation, module.kernel_size, strict=True
        )
    ]
    return weight_gradient_squares(module, a, g, padding=padding, output_padding=longer)


def transposed_blocks(layer: Layer, a: Tensor, g: Tensor) -> Iterator[Tensor]:
    """W [images, groups, inputs, outputs] for each kernel offset, by inputs where it is large; b [images, outputs]."""
    module = cast(_ConvTransposeNd, layer.module)
    if "weight" in layer.parameters:
        yield from weight_blocks(module, a, g)
    if "bias" in layer.parameters:
        yield g.flatten(2).sum(2)


def weight_blocks(module: _ConvTransposeNd, a: Tensor, g: Tensor) -> Iterator[Tensor]:
    """grad W_o = a g_o^T [images, groups, inputs, outputs] for each kernel offset o."""
    rows, whole = by_group(a, module.groups), padded(module, g)
    for window in windows(module, tuple(a.shape[2:])):
        view = by_group(whole[(slice(None), slice(None), *window)], module.groups)
        for some in spans(rows.shape[2], len(g) * module.out_channels):
            yield rows[:, :, some] @ view.transpose(2, 3)


TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
TRANSPOSED_FORM = Form(transposed, transposed_blocks)
