"""Projected norms: the norms of large per-image gradients from a few random projections of each.

For a gradient G [outputs, ...] of one image and r_1, ..., r_m independent vectors of random signs [outputs],

    || G ||^2 = E 1/m sum_k || r_k^T G ||^2,

since E[r r^T] = 1 (Hutchinson 1990). Only r_k^T g is ever multiplied with the input: for O outputs the work falls
from O to m. Every image, vector and layer has signs of its own: with shared ones the images' errors would be
correlated, and the standard error over images far too small.
"""

from collections.abc import Callable
from math import prod
from typing import cast

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from ..layers import Layer
from .affine import positions_of
from .convolution import CONVOLUTIONS, cheapest, output_sizes, pad_amounts, windows
from .form import SquaredNorms, squares

Draw = Callable[[int], Float[Tensor, "images projections outputs"]]  # fresh random signs for so many outputs
WORTH = 4  # projections must be so many times fewer than a layer's outputs
WORK = 2**22  # multiply-adds of an image's gradient below which the random numbers cost more than they save


def projected(layer: Layer, a: Tensor, draw: Draw, projections: int) -> SquaredNorms | None:
    """The squared norms by projection, or None where the closed form is as cheap."""
    if "weight" not in layer.parameters:
        return None
    if type(layer.module) in CONVOLUTIONS:
        return _convolution(layer, a, draw, projections)
    if type(layer.module) is nn.Linear and a.dim() > 2:
        return _linear(layer, positions_of(a), draw, projections)
    return None


def _convolution(layer: Layer, a: Tensor, draw: Draw, projections: int) -> SquaredNorms | None:
    module = cast(_ConvNd, layer.module)
    outputs = module.out_channels
    work = module.weight.numel() * prod(output_sizes(module, a))
    small = WORTH * projections > outputs or work < WORK or module.groups > 1 or module.padding_mode != "zeros"
    if small or cheapest(module, a, prod(output_sizes(module, a))) == "gram":
        return None

    def norms(g: Tensor) -> Tensor:
        mixed = (draw(outputs) @ g.flatten(2)).unflatten(2, g.shape[2:])  # [images, projections, *sizes]
        total = squares(_shifted(module, mixed, a) @ a.flatten(2).transpose(1, 2)) / projections
        return total + squares(g.flatten(2).sum(2)) if "bias" in layer.parameters else total

    return norms


def _shifted(module: _ConvNd, mixed: Tensor, a: Tensor) -> Float[Tensor, "images rows pixels"]:
    """The projected output gradient where each kernel offset puts it among the input's pixels, zeros elsewhere.

    One row for each offset and projection: the small side of the product is unfolded, not the input.
    """
    pads = pad_amounts(module)
    whole = [size + sum(pad) for size, pad in zip(a.shape[2:], pads, strict=True)]
    rows = mixed.new_zeros(len(mixed), prod(module.kernel_size), mixed.shape[1], *whole)
    for offset, window in enumerate(windows(module, tuple(mixed.shape[2:]))):
        rows[:, offset][(slice(None), slice(None), *window)] = mixed
    for axis, ((before, _), size) in enumerate(zip(pads, a.shape[2:], strict=True)):
        rows = rows.narrow(3 + axis, before, size)  # without the padding
    return rows.flatten(1, 2).flatten(2)


def _linear(layer: Layer, a: Tensor, draw: Draw, projections: int) -> SquaredNorms | None:
    positions = a.shape[1]
    outputs = cast(nn.Linear, layer.module).out_features
    if WORTH * projections > min(outputs, positions) or positions * a.shape[2] * outputs < WORK:
        return None

    def norms(g: Tensor) -> Tensor:
        g = positions_of(g)
        mixed = draw(outputs) @ g.transpose(1, 2)  # [images, projections, positions]
        total = squares(mixed @ a) / projections
        return total + squares(g.sum(1)) if "bias" in layer.parameters else total

    return norms
