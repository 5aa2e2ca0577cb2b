"""What a closed form is: squared norms of per-image gradients, and the gradients themselves in pieces."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from ..layers import Layer

SquaredNorms = Callable[[Tensor], Tensor]  # output gradient [images, ...] -> squared norms [images]
PIECE = 2**24  # numbers in one piece of a gradient, unless a single row or column has more


@dataclass(frozen=True)
class Form:
    """The closed form of one type of layer, for the parameters in `layer.parameters`.

    `norms(layer, a)` takes the layer's input and returns the function of the output gradient g (of one vector v)
    that gives || J_l^T v ||^2 for every image, without building the gradient where something cheaper equals it.
    `blocks(layer, a, g)` builds J_l^T v itself, in pieces [images, ...] whose squares sum to the norm.
    """

    norms: Callable[[Layer, Tensor], SquaredNorms]
    blocks: Callable[[Layer, Tensor, Tensor], Iterator[Tensor]]
    parameters: tuple[str, ...] = ("weight", "bias")  # those that it is right for


def squares(x: Tensor) -> Float[Tensor, " images"]:
    """Sum of squares over everything but the images."""
    return x.flatten(1).square().sum(1)


def spans(length: int, each: int) -> Iterator[slice]:
    """Cut `length` rows or columns of `each` numbers into slices of at most `PIECE` numbers."""
    step = max(1, PIECE // max(1, each))
    return (slice(start, min(start + step, length)) for start in range(0, length, step))
