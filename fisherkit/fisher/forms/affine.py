"""Closed forms of per-image gradient norms: Linear and Embedding.

A form takes a layer and its input and returns a function of the output gradient g (of one vector v) that gives
|| J_l^T v ||^2 for every image, without building the gradient where something cheaper is equal to it.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..layers import Layer

SquaredNorms = Callable[[Tensor], Tensor]  # output gradient [images, ...] -> squared norms [images]


def squares(x: Tensor) -> Float[Tensor, " images"]:
    """Sum of squares over everything but the images."""
    return x.flatten(1).square().sum(1)


def linear(layer: Layer, a: Float[Tensor, "images *positions inputs"]) -> SquaredNorms:
    """W: grad = sum_t g_t a_t^T over positions t; ||grad||^2 = sum_tt' (g_t . g_t') (a_t . a_t').

    Without positions this is ||g||^2 ||a||^2. With T positions the Grams cost T^2 (I + O), the gradient T I O:
    the cheaper is taken. b: grad = sum_t g_t.
    """
    module = layer.module
    assert isinstance(module, nn.Linear)
    a = a.flatten(1, -2) if a.dim() > 2 else a[:, None]  # [images, positions, inputs]
    positions = a.shape[1]
    by_gram = positions * (module.in_features + module.out_features) < module.in_features * module.out_features
    shared = a @ a.transpose(1, 2) if "weight" in layer.parameters and by_gram else None

    def norms(g: Tensor) -> Tensor:
        g = g.flatten(1, -2) if g.dim() > 2 else g[:, None]  # [images, positions, outputs]
        total = g.new_zeros(len(g))
        if "bias" in layer.parameters:
            total = total + squares(g.sum(1))
        if shared is not None:
            total = total + (shared * (g @ g.transpose(1, 2))).flatten(1).sum(1)
        elif "weight" in layer.parameters:
            total = total + squares(g.transpose(1, 2) @ a)
        return total

    return norms


def embedding(layer: Layer, tokens: Tensor) -> SquaredNorms:
    """Row r: grad = sum of g_t over the positions t that hold token r; padding_idx has no gradient.

    ||grad||^2 = sum_tt' [token_t = token_t'] g_t . g_t'
    """
    module = layer.module
    assert isinstance(module, nn.Embedding)
    tokens = tokens.reshape(len(tokens), -1)  # [images, positions]
    same = tokens[:, :, None] == tokens[:, None, :]
    if module.padding_idx is not None:
        same &= (tokens != module.padding_idx)[:, :, None]

    def norms(g: Tensor) -> Tensor:
        g = g.reshape(*tokens.shape, -1)  # [images, positions, features]
        return torch.where(same, g @ g.transpose(1, 2), 0.0).flatten(1).sum(1)

    return norms
