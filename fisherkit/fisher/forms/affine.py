"""Closed forms of per-image gradients: Linear and Embedding."""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor, nn

from ..layers import Layer
from .form import Form, SquaredNorms, spans, squares


def linear(layer: Layer, a: Float[Tensor, "images *positions inputs"]) -> SquaredNorms:
    """A weight and a bias at every position."""
    return over_positions(positions_of(a), weight="weight" in layer.parameters, bias="bias" in layer.parameters)


def linear_blocks(layer: Layer, a: Tensor, g: Tensor) -> Iterator[Tensor]:
    """W [images, outputs, inputs], by rows where it is large; b [images, outputs]."""
    has = {"weight": "weight" in layer.parameters, "bias": "bias" in layer.parameters}
    return over_positions_blocks(positions_of(a), positions_of(g), **has)


def over_positions(a: Float[Tensor, "images positions inputs"], *, weight: bool, bias: bool) -> SquaredNorms:
    """W: grad = sum_t g_t a_t^T over positions t; ||grad||^2 = sum_tt' (g_t . g_t') (a_t . a_t').

    Without positions this is ||g||^2 ||a||^2. With T positions the Grams cost T^2 (I + O), the gradient T I O:
    the cheaper is taken. b: grad = sum_t g_t.
    """
    shared: Tensor | None = None  # Gram matrix of the input, for every vector

    def norms(g: Tensor) -> Tensor:
        nonlocal shared
        g = positions_of(g)
        positions, inputs, outputs = a.shape[1], a.shape[2], g.shape[2]
        total = squares(g.sum(1)) if bias else g.new_zeros(len(g))
        if not weight:
            return total
        if positions * (inputs + outputs) >= inputs * outputs:
            return total + squares(g.transpose(1, 2) @ a)
        if shared is None:
            shared = a @ a.transpose(1, 2)
        return total + (shared * (g @ g.transpose(1, 2))).flatten(1).sum(1)

    return norms


def over_positions_blocks(a: Tensor, g: Tensor, *, weight: bool, bias: bool) -> Iterator[Tensor]:
    """W [images, outputs, inputs], by rows where it is large; b [images, outputs]."""
    if weight:
        for rows in spans(g.shape[2], len(a) * a.shape[2]):
            yield g[:, :, rows].transpose(1, 2) @ a
    if bias:
        yield g.sum(1)


def positions_of(x: Tensor) -> Float[Tensor, "images positions features"]:
    """All dimensions between the images and the features as one."""
    return x.flatten(1, -2) if x.dim() > 2 else x[:, None]


def embedding(layer: Layer, tokens: Tensor) -> SquaredNorms:
    """Row r: grad = sum of g_t over the positions t that hold token r; padding_idx has no gradient.

    The rows of the tokens that an image holds are summed, at most one for each of its positions.
    """
    module = layer.module
    assert isinstance(module, nn.Embedding)
    tokens = tokens.reshape(len(tokens), -1)  # [images, positions]
    first = torch.arange(len(tokens), device=tokens.device)[:, None] * tokens.shape[1]
    row = (first + _ranks(tokens)).flatten()
    padding = None if module.padding_idx is None else (tokens == module.padding_idx)[:, :, None]

    def norms(g: Tensor) -> Tensor:
        g = g.reshape(*tokens.shape, -1)  # [images, positions, features]
        g = g if padding is None else g.masked_fill(padding, 0.0)
        rows = torch.zeros_like(g, memory_format=torch.contiguous_format).flatten(0, 1)
        return squares(rows.index_add_(0, row, g.flatten(0, 1)).view_as(g))

    return norms


def _ranks(tokens: Int[Tensor, "images positions"]) -> Int64[Tensor, "images positions"]:
    """Which of its image's different tokens, in their order, each position holds."""
    ordered, order = tokens.sort(1)
    starts = torch.zeros_like(ordered)
    starts[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    return torch.empty_like(order).scatter_(1, order, starts.cumsum(1))


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
