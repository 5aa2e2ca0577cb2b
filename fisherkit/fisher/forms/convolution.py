"""Closed forms of per-image gradients: convolutions of 1, 2 and 3 dimensions.

With a the padded input, g the output gradient [groups, outputs, L] over L output positions and one shifted,
strided view a_o [groups, inputs, L] for each of the K kernel offsets o:

    grad W_o = g a_o^T,      ||grad W||^2 = sum_o ||g a_o^T||^2                              (direct)
                                          = sum_ll' (g^T g)_ll' (sum_o a_o^T a_o)_ll'        (Gram)

The second sum over offsets is the Gram matrix of the patches. It needs no patches: each a_o^T a_o is a shifted
view of the one Gram matrix of the input's pixels. Neither form builds an unfolded input, which would be K times
the input. Multiply-adds for S pixels: direct K L I O; Gram S^2 I + K L^2 + L^2 O (all per group). On a CPU the
direct form is mostly fastest as the library's own weight gradient, see library.py.

A form keeps the input itself, which the graph keeps anyway, and pads or multiplies it only when a gradient arrives.
"""

from collections.abc import Iterator
from itertools import product
from math import prod
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from ..layers import Layer
from .form import Form, SquaredNorms, spans, squares
from .library import weight_gradient_squares

# costs against a multiply-add of `direct`, measured on two kinds of CPU core (benchmarks/convolution_forms.py)
GRAM_COST = 2.0
LIBRARY_COST = 0.5
LIBRARY_IMAGE = 2e4  # what an image costs
MOVED_COST = 4.0  # of a number of a shifted view, in and out
SKINNY, SKINNY_COST = 8, 8.0  # the same with fewer channels than 8


def convolution(layer: Layer, a: Tensor) -> SquaredNorms:
    """The cheapest of the forms for these shapes; the bias's gradient is g summed over positions."""
    module = cast(_ConvNd, layer.module)
    positions = output_sizes(module, a)
    form = cheapest(module, a, prod(positions)) if "weight" in layer.parameters else None
    patches: Tensor | None = None  # made for the first vector, shared by all

    def norms(g: Tensor) -> Tensor:
        nonlocal patches
        total = g.new_zeros(len(g))
        if "bias" in layer.parameters:
            total = total + squares(g.flatten(2).sum(2))
        if form == "gram":
            patches = patch_gram(module, a, positions) if patches is None else patches
            rows = by_group(g, module.groups)
            total = total + (patches * (rows.transpose(2, 3) @ rows)).flatten(1).sum(1)
        elif form is not None:
            total = total + (library if form == "library" else direct)(module, a, g)
        return total

    return norms


def output_sizes(module: _ConvNd, a: Tensor) -> tuple[int, ...]:
    """The spatial sizes of the output for this input."""
    before = pad_amounts(module)
    sizes = []
    for axis, size in enumerate(a.shape[2:]):
        span = module.dilation[axis] * (module.kernel_size[axis] - 1) + 1
        sizes.append((size + sum(before[axis]) - span) // module.stride[axis] + 1)
    return tuple(sizes)


def cheapest(module: _ConvNd, a: Tensor, positions: int) -> str:
    """`gram`, `direct` or `library`: the smallest count of multiply-adds, weighted by what one costs."""
    inputs, outputs = module.in_channels // module.groups, module.out_channels // module.groups
    kernel, pixels = prod(module.kernel_size), prod(a.shape[2:])
    if module.padding_mode != "zeros":
        pixels = prod(size + sum(pad) for size, pad in zip(a.shape[2:], pad_amounts(module), strict=True))
    work = kernel * positions * inputs * outputs
    moved = SKINNY_COST if min(inputs, outputs) < SKINNY and module.groups == 1 else MOVED_COST
    costs = {
        "gram": GRAM_COST * (pixels**2 * inputs + kernel * positions**2 + positions**2 * outputs),
        "direct": work + moved * kernel * positions * (inputs + outputs),
    }
    if a.device.type == "cpu":
        costs["library"] = LIBRARY_COST * work + LIBRARY_IMAGE / module.groups
    return min(costs, key=lambda form: costs[form])


def library(module: _ConvNd, a: Tensor, g: Tensor) -> Tensor:
    """||grad W||^2 by the library's weight gradient."""
    if module.padding_mode == "zeros" and not isinstance(module.padding, str):
        return weight_gradient_squares(module, a, g, padding=module.padding)
    return weight_gradient_squares(module, padded(module, a), g, padding=[0] * len(module.kernel_size))


def direct(module: _ConvNd, a: Tensor, g: Tensor) -> Tensor:
    """||grad W||^2 by one batched matrix product for each kernel offset."""
    total = g.new_zeros(len(g))
    for piece in weight_blocks(module, a, g):
        total = total + squares(piece)
    return total


def convolution_blocks(layer: Layer, a: Tensor, g: Tensor) -> Iterator[Tensor]:
    """W [images, groups, outputs, inputs] for each kernel offset, by outputs where it is large; b [images, outputs]."""
    if "weight" in layer.parameters:
        yield from weight_blocks(cast(_ConvNd, layer.module), a, g)
    if "bias" in layer.parameters:
        yield g.flatten(2).sum(2)


def weight_blocks(module: _ConvNd, a: Tensor, g: Tensor) -> Iterator[Tensor]:
    """grad W_o = g a_o^T [images, groups, outputs, inputs] for each kernel offset o."""
    whole, rows = padded(module, a), by_group(g, module.groups)
    for window in windows(module, tuple(g.shape[2:])):
        view = by_group(whole[(slice(None), slice(None), *window)], module.groups)
        for some in spans(rows.shape[2], len(g) * module.in_channels):
            yield rows[:, :, some] @ view.transpose(2, 3)


def by_group(x: Tensor, groups: int) -> Tensor:
    """[images, channels, *sizes] -> [images, groups, channels of a group, positions]."""
    return torch.unflatten(x, 1, (groups, -1)).flatten(3)


def patch_gram(module: _ConvNd, a: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """sum_o a_o^T a_o [images, groups, L, L] from shifted views of the Gram matrix of the pixels."""
    if module.padding_mode != "zeros":
        a = padded(module, a)
    pixels = by_group(a, module.groups)  # [images, groups, inputs, S]
    gram = (pixels.transpose(2, 3) @ pixels).unflatten(3, a.shape[2:]).unflatten(2, a.shape[2:])
    if module.padding_mode == "zeros":
        gram = F.pad(gram, [*module._reversed_padding_repeated_twice] * 2)  # Gram of zeros: zeros
    length = prod(sizes)
    total = a.new_zeros(*gram.shape[:2], length, length)
    for window in windows(module, sizes):
        shifted = gram[(slice(None), slice(None), *window, *window)]
        total += shifted.reshape(total.shape)
    return total


def windows(module: _ConvNd, sizes: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """For each kernel offset, the slices of the padded input that meet it at the output positions."""
    for offset in product(*(range(size) for size in module.kernel_size)):
        starts = [o * dilation for o, dilation in zip(offset, module.dilation, strict=True)]
        yield tuple(
            slice(start, start + (size - 1) * stride + 1, stride)
            for start, size, stride in zip(starts, sizes, module.stride, strict=True)
        )


def pad_amounts(module: _ConvNd) -> list[tuple[int, int]]:
    """(before, after) for each spatial axis, first axis first; also for padding='same'."""
    flat = module._reversed_padding_repeated_twice
    return [(flat[2 * axis], flat[2 * axis + 1]) for axis in reversed(range(len(flat) // 2))]


def padded(module: _ConvNd, a: Tensor) -> Tensor:
    """The input with its padding."""
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    amounts = list(module._reversed_padding_repeated_twice)
    return F.pad(a, amounts, mode=mode) if any(amounts) else a


CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
CONVOLUTION_FORM = Form(convolution, convolution_blocks)
