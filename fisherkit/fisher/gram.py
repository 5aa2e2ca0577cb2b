"""Gram matrices of score vectors: everything about a layer's Fisher on a sample but its eigenvectors.

With the M score vectors u = J_l^T v of a layer as the rows of G [M, parameters],

    F_l = G^T G / N      and      K_l = G G^T / N      have the same nonzero eigenvalues,

in float64, lower triangle only. G itself is held where it is smaller than what it is made of; otherwise it is built
piece by piece (K = sum over pieces of piece @ piece^T), or K is had from inner products without G (forms/pairs.py),
whichever takes fewer multiply-adds. What is chosen depends on shapes alone, so that the bits do not depend on the
memory that happens to be free.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from .forms.form import PIECE, Form
from .forms.pairs import has_pairs, positions, similarity
from .layers import Layer

STRIPS = 8  # of a symmetric product: 9/16 of its multiply-adds
PAIR_SIDE = 2048  # positions times vectors in one product of output gradients: 32 MiB in float64
ELEMENT_COST = 30.0  # of one number of such a product, beside its multiply-adds (memory-bound; measured 20 to 45)


@dataclass(frozen=True, eq=False)
class Factors:
    """What the score vectors of one layer are made of."""

    inputs: Float[Tensor, "images *a"] | Int64[Tensor, "images *a"]
    gradients: Float[Tensor, "vectors *g"]  # of the layer's output
    image: Int64[Tensor, " vectors"]  # whose score vector it is

    @property
    def each(self) -> int | None:
        """Vectors an image, in order, or None when images have different numbers of them."""
        each = len(self.gradients) // len(self.inputs)
        ordered = torch.arange(len(self.inputs), device=self.image.device).repeat_interleave(each)
        return each if torch.equal(self.image, ordered) else None


def gram_of_gradients(g: Float[Tensor, "vectors numbers"]) -> Float64[Tensor, "vectors vectors"]:
    """G G^T (lower triangle)."""
    total = _square(g)
    for columns in g.split(max(1, PIECE // len(g)), 1):
        add_lower(total, columns.double())
    return total


def moment_of_gradients(g: Float[Tensor, "vectors numbers"]) -> Float64[Tensor, "numbers numbers"]:
    """G^T G, for fewer numbers than vectors."""
    g = g.double()
    return g.T @ g


def gram(layer: Layer, form: Form, factors: Factors) -> Float64[Tensor, "vectors vectors"]:
    """G G^T (lower triangle) by the cheaper of pieces of G and pairwise inner products."""
    vectors, images = len(factors.gradients), len(factors.inputs)
    cheaper = pairs_are_cheaper(layer, vectors=vectors, images=images, places=places_of(layer, factors.gradients))
    if factors.each is not None and cheaper:
        return gram_by_pairs(layer, factors)
    return gram_by_pieces(layer, form, factors)


def gram_by_pieces(layer: Layer, form: Form, factors: Factors) -> Float64[Tensor, "vectors vectors"]:
    """Sum over the pieces of the gradients, each [vectors, numbers], of piece @ piece^T."""
    total = _square(factors.gradients)
    for piece in form.blocks(layer, factors.inputs[factors.image], factors.gradients):
        add_lower(total, piece.flatten(1).double())
    return total


def gram_by_pairs(layer: Layer, factors: Factors) -> Float64[Tensor, "vectors vectors"]:
    """Inner products between some vectors of some images and some of others at a time."""
    sizes, total = tuple(factors.gradients.shape[2:]), _square(factors.gradients)
    parts = list(_parts(factors, places_of(layer, factors.gradients)))
    for index, (images, rows) in enumerate(parts):
        g = positions(layer, factors.gradients[rows])
        for others, columns in parts[: index + 1]:
            near = similarity(layer, factors.inputs[images], factors.inputs[others], sizes)
            total[rows, columns] = _paired(g, positions(layer, factors.gradients[columns]), near)
    return total


def _parts(factors: Factors, places: int) -> Iterator[tuple[slice, slice]]:
    """(images, their vectors): all vectors of as many images as `PAIR_SIDE` allows, or some of one image's."""
    each = factors.each
    assert each is not None
    some = max(1, PAIR_SIDE // (each * places))
    for start in range(0, len(factors.inputs), some):
        images = slice(start, min(start + some, len(factors.inputs)))
        step = (images.stop - start) * each if some > 1 else min(each, max(1, PAIR_SIDE // places))
        for row in range(start * each, images.stop * each, step):
            yield images, slice(row, min(row + step, images.stop * each))


def _paired(
    g: Float64[Tensor, "m t o"], h: Float64[Tensor, "n s o"], near: Float64[Tensor, "a t b s"]
) -> Float64[Tensor, "m n"]:
    """sum_ts (g_t . h_s) near_ts for every pair of vectors; as many vectors in a row share an image."""
    a, t, b, s = near.shape
    products = (g.flatten(0, 1) @ h.flatten(0, 1).T).view(a, -1, t, b, len(h) // b, s)
    return products.mul_(near[:, None, :, :, None]).sum((2, 5)).flatten(0, 1).flatten(1, 2)


def _square(like: Tensor) -> Float64[Tensor, "side side"]:
    return like.new_zeros(len(like), len(like), dtype=torch.float64)


def add_lower(total: Float64[Tensor, "m m"], rows: Float64[Tensor, "m p"]) -> None:
    """Add rows @ rows^T to the lower triangle; what lies above it is not to be used."""
    strip = -(-len(rows) // STRIPS)
    for start in range(0, len(rows), strip):
        stop = min(start + strip, len(rows))
        total[start:stop, :stop].addmm_(rows[start:stop], rows[:stop].T)


def pairs_are_cheaper(layer: Layer, *, vectors: int, images: int, places: int) -> bool:
    """By multiply-adds, for M vectors of N images, T positions, P parameters, I inputs and O outputs of a position:

    pieces  M^2 P / 2 + M T P;     pairs  M^2 T^2 (O + cost of a number) / 2 + N^2 T^2 I / 2.
    """
    if not has_pairs(layer):
        return False
    outputs, numbers = _outputs(layer), layer.size
    pieces = vectors**2 * numbers / 2 + vectors * places * numbers
    products = (vectors * places) ** 2 * (outputs + ELEMENT_COST) / 2
    near = (images * places) ** 2 * layer.parameters["weight"].numel() / outputs / 2
    return products + near < pieces


def _outputs(layer: Layer) -> int:
    weight = layer.parameters["weight"]
    return weight.shape[1] if isinstance(layer.module, nn.Embedding) else weight.shape[0]


def places_of(layer: Layer, g: Tensor) -> int:
    """The number of positions at which the layer applies its weight, from its output gradient."""
    return prod(g.shape[2:]) if isinstance(layer.module, _ConvNd) else prod(g.shape[1:-1])
