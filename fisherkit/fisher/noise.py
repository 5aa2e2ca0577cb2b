"""Random numbers that belong to images: the same for an image whatever batch, process or order it is measured in."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

WORD = 2**64


class ImageNoise:
    """Uniform numbers in [0, 1) as a function of (seed, position of the image).

    A counter-based generator (Philox 4x64; Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): the
    seed is its key and the image's position the high word of its counter, so that no two images share numbers.

    Args:
        seed: of the draws.
        stream: numbers for different purposes are independent; one number each.
    """

    def __init__(self, seed: int, stream: int = 0) -> None:
        self._bits = np.random.Philox(key=seed % WORD)
        self._state = self._bits.state
        self._uniform = np.random.Generator(self._bits)
        self._stream = stream

    def uniforms(self, start: int, shape: tuple[int, ...]) -> Float64[Tensor, "images ..."]:
        """Numbers for the images at positions start, start + 1, ...; shape [images, ...]."""
        numbers = np.empty(shape)
        for row, position in zip(numbers, range(start, start + shape[0]), strict=True):
            self._seek(position)
            self._uniform.random(out=row)
        return torch.from_numpy(numbers)

    @classmethod
    def draws(cls, seed: int, start: int, shape: tuple[int, ...], device: torch.device) -> Callable[[int], Tensor]:
        """Numbers for the images from `start` on, as a function of the draw, which is the stream."""
        return lambda draw: cls(seed, draw).uniforms(start, shape).to(device, non_blocking=True)

    def _seek(self, position: int) -> None:
        self._state["state"]["counter"][:] = (0, 0, self._stream, position)
        self._state["buffer_pos"] = 4  # nothing left over from the last image
        self._bits.state = self._state
