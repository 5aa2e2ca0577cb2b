"""Closed forms of per-image gradients: Linear and Embedding."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..layers import Layer
from .form import Form, SquaredNorms, spans, squares


def linear(layer: Layer, a: Float[Tensor, "images *positions inputs"]) -> SquaredNorms:
    """W: grad = sum_t g_t a_t^T over positions t; ||grad||^2 = sum_tt' (g_t . g_t') (a_t . a_t').

    Without positions this is ||g||^2 ||a||^2. With T positions the Grams cost T^2 (I + O), the gradient T I O:
    the cheaper is taken. b: grad = sum_t g_t.
    """
    module = layer.module
    assert isinstance(module, nn.Linear)
    a = _positions(a)
    positions = a.shape[1]
    by_gram = positions * (module.in_features + module.out_features) < module.in_features * module.out_features
    shared = a @ a.transpose(1, 2) if "weight" in layer.parameters and by_gram else None

    def norms(g: Tensor) -> Tensor:
        g = _positions(g)
        total = g.new_zeros(len(g))
        if "bias" in layer.parameters:
            total = total + squares(g.sum(1))
        if shared is not None:
            total = total + (shared * (g @ g.transpose(1, 2))).flatten(1).sum(1)
        elif "weight" in layer.parameters:
            total = total + squares(g.transpose(1, 2) @ a)
        return total

    return norms


def linear_blocks(layer: Layer, a: Tensor, g: Tensor) -> Iterator[Tensor]:
    """W [images, outputs, inputs], by rows where it is large; b [images, outputs]."""
    a, g = _positions(a), _positions(g)
    if "weight" in layer.parameters:
        for rows in spans(g.shape[2], len(a) * a.shape[2]):
            yield g[:, :, rows].transpose(1, 2) @ a
    if "bias" in layer.parameters:
        yield g.sum(1)


def _positions(x: Tensor) -> Float[Tensor, "images positions features"]:
    return x.flatten(1, -2) if x.dim() > 2 else x[:, None]


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


def embedding_blocks(layer: Layer, tokens: Tensor, g: Tensor) -> Iterator[Tensor]:
    """[images, tokens that occur, features], by columns where it is large; other rows of the weight are zero."""
    module = layer.module
    assert isinstance(module, nn.Embedding)
    occurring, row = tokens.reshape(len(tokens), -1).unique(return_inverse=True)  # row [images, positions]
    g = g.reshape(*row.shape, -1)  # [images, positions, features]
    if module.padding_idx is not None:
        g = g.masked_fill((occurring[row] == module.padding_idx)[:, :, None], 0.0)
    for columns in spans(g.shape[2], len(g) * len(occurring)):
        part = g[:, :, columns]
        piece = g.new_zeros(len(g), len(occurring), part.shape[2])
        yield piece.scatter_add_(1, row[:, :, None].expand_as(part), part)


LINEAR = Form(linear, linear_blocks)
EMBEDDING = Form(embedding, embedding_blocks)
