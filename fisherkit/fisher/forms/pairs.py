"""Inner products of per-image gradients between images, without the gradients.

A layer that applies one weight at each of T positions (a Linear over positions, a convolution over patches, an
Embedding over tokens) has the gradient  sum_t g_t b_t^T,  with b_t its input at position t. For two images

    <grad, grad'> = sum_tt' (g_t . g'_t') (b_t . b'_t')         and  + 1 in the second factor  for the bias.

The second factor is the same for every vector that is sent back through an image.
"""

from collections.abc import Callable
from typing import cast

import torch
from jaxtyping import Float64
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from ..layers import Layer
from .affine import positions_of
from .convolution import CONVOLUTIONS, padded, windows

Similarity = Callable[[Layer, Tensor, Tensor, tuple[int, ...]], Tensor]


def positions(layer: Layer, g: Tensor) -> Float64[Tensor, "vectors positions outputs"]:
    """The output gradient with the layer's positions in one dimension."""
    if isinstance(layer.module, _ConvNd):
        return g.flatten(2).transpose(1, 2).double()
    return positions_of(g).double()


def similarity(
    layer: Layer, a: Tensor, other: Tensor, sizes: tuple[int, ...]
) -> Float64[Tensor, "images positions others others_positions"]:
    """b_t . b'_t' [+ 1] for all positions of the images of two inputs; `sizes` are a convolution's output sizes."""
    products = SIMILARITIES[type(layer.module)](layer, a, other, sizes)
    return products + 1.0 if "bias" in layer.parameters else products


def _linear(layer: Layer, a: Tensor, other: Tensor, sizes: tuple[int, ...]) -> Tensor:
    return _products(positions_of(a), positions_of(other))


def _convolution(layer: Layer, a: Tensor, other: Tensor, sizes: tuple[int, ...]) -> Tensor:
    return _products(_patches(layer, a, sizes), _patches(layer, other, sizes))


def _patches(layer: Layer, a: Tensor, sizes: tuple[int, ...]) -> Float64[Tensor, "images positions features"]:
    """Called for few images with small maps only: elsewhere patches would be too large."""
    module = cast(_ConvNd, layer.module)
    whole = padded(module, a)
    views = [whole[(slice(None), slice(None), *window)].flatten(2) for window in windows(module, sizes)]
    return torch.cat(views, 1).transpose(1, 2).double()


def _embedding(layer: Layer, tokens: Tensor, other: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """1 where both positions hold the same token; the padding token has no gradient."""
    module = cast(nn.Embedding, layer.module)
    mine, theirs = tokens.reshape(len(tokens), -1, 1, 1), other.reshape(1, 1, len(other), -1)
    same = mine == theirs
    if module.padding_idx is not None:
        same &= mine != module.padding_idx
    return same.double()


def _products(x: Tensor, y: Tensor) -> Float64[Tensor, "images positions others others_positions"]:
    flat = x.double().flatten(0, 1) @ y.double().flatten(0, 1).T
    return flat.view(*x.shape[:2], *y.shape[:2])


SIMILARITIES: dict[type[nn.Module], Similarity] = {
    nn.Linear: _linear,
    nn.Embedding: _embedding,
    **dict.fromkeys(CONVOLUTIONS, _convolution),
}


def has_pairs(layer: Layer) -> bool:
    """Whether the inner products can be had from inputs and output gradients."""
    ungrouped = getattr(layer.module, "groups", 1) == 1
    return "weight" in layer.parameters and type(layer.module) in SIMILARITIES and ungrouped
