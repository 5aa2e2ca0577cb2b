"""Ghost norms by random projection, for those who ask for it: see forms/projection.py."""

from collections.abc import Callable, Iterator
from itertools import count

from torch import Tensor

from .forms.projection import projected
from .ghost import norms_of
from .layers import Layer
from .losses.likelihood import signs
from .noise import ImageNoise

PROJECTED = "projected"  # as an engine in results
STREAMS = 2**32  # of random numbers for one layer, one for each vector; stream 0 is the estimator's


class Sketch:
    """How layers respond to output gradients when large gradients are projected.

    Args:
        seed: of the signs.
        projections: an image, layer and vector.
        numbers: layer -> its number, which keeps its signs apart from the other layers'.
    """

    def __init__(self, seed: int, projections: int, numbers: dict[str, int]) -> None:
        self.seed, self.projections, self.numbers = seed, projections, numbers
        self.layers: set[str] = set()  # those that were projected

    def respond(self, start: int) -> Callable[[Layer, Tensor], Callable[[Tensor], Tensor]]:
        """For a batch whose first image is at position `start`."""

        def norms(layer: Layer, a: Tensor) -> Callable[[Tensor], Tensor]:
            draw = self._signs(self.numbers[layer.name], start, a)
            by_projection = projected(layer, a, draw, self.projections)
            if by_projection is None:
                return norms_of(layer, a)
            self.layers.add(layer.name)
            return lambda g: by_projection(g).double()

        return norms

    def _signs(self, number: int, start: int, a: Tensor) -> Callable[[int], Tensor]:
        streams: Iterator[int] = count((number + 1) * STREAMS)

        def draw(outputs: int) -> Tensor:
            uniforms = ImageNoise(self.seed, next(streams)).uniforms(start, (len(a), self.projections, outputs))
            return signs(uniforms).to(a.device, a.dtype)

        return draw
