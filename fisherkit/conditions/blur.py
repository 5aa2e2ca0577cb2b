"""Blur as in the critical-periods paper: shrink by a factor and enlarge again, as PIL's bilinear does."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float64, UInt8
from torch import Tensor

from fisherkit.conditions.deficit import Deficit
from fisherkit.images.image_set import ImageSet

_CHUNK_PIXELS = 2**21
_PIL_ONE = 1 << 22  # 1 in PIL's fixed-point resampling weights for 8-bit images


@dataclass(frozen=True)
class Blur(Deficit):
    """Low resolution: size -> size / factor -> size, bilinear, antialiased when shrinking.

    Achille, Rovere, Soatto, Critical Learning Periods in Deep Networks (ICLR 2019): 32 -> 8 -> 32, blur(4).
    The factor must divide the image size and be smaller than it. Equal to PIL's resize to the last bit.
    """

    factor: int = 4
    name = "blur"

    def __post_init__(self) -> None:
        if self.factor < 2:
            raise ValueError(f"factor of blur must be a whole number >= 2; got {self.factor!r}.")

    def apply(self, images: ImageSet, *, seed: int, epoch: int = 0) -> ImageSet:
        """The blurred images; no random numbers."""
        size = images.images.shape[-2:]
        if any(side % self.factor or side == self.factor for side in size):
            raise ValueError(self._misfit(*size))
        return replace(images, images=_blurred(images.images, self.factor))

    def _misfit(self, height: int, width: int) -> str:
        fitting = [
            str(factor) for factor in range(2, min(height, width)) if height % factor == 0 and width % factor == 0
        ]
        choices = f"Choose from {', '.join(fitting)}." if fitting else "No factor fits this size."
        return (
            f"factor of blur must divide the image size {height} x {width} and be smaller; "
            f"got {self.factor!r}. {choices}"
        )


def _blurred(
    images: UInt8[Tensor, "images channels height width"], factor: int
) -> UInt8[Tensor, "images channels height width"]:
    count, channels, height, width = images.shape
    # float64 holds PIL's integer sums exactly, on every device; MPS has no float64
    device = torch.device("cpu") if images.device.type == "mps" else images.device
    passes = [
        (resampling(before, after).to(device), axis)
        for before, after, axis in (
            (width, width // factor, -1),
            (height, height // factor, -2),
            (width // factor, width, -1),
            (height // factor, height, -2),
        )
    ]
    blurred = torch.empty_like(images, memory_format=torch.contiguous_format)
    chunk = max(1, _CHUNK_PIXELS // (channels * height * width))
    for start in range(0, count, chunk):
        pixels = images[start : start + chunk].to(device, torch.float64)
        for weights, axis in passes:
            pixels = resample(pixels, weights, axis=axis)
        blurred[start : start + chunk] = pixels.to(torch.uint8).to(images.device)
    return blurred


def resampling(before: int, after: int) -> Float64[Tensor, "after before"]:
    """PIL's bilinear weights from `before` to `after` pixels, as multiples of 2^-22.

    With scale s = before / after and support max(s, 1), weight[i, j] is proportional to
    max(0, 1 - |j + 1/2 - (i + 1/2) s| / support), normalised to sum 1 over j inside the image.
    """
    scale = before / after
    centres = (torch.arange(after, dtype=torch.float64) + 0.5) * scale
    distance = (torch.arange(before, dtype=torch.float64) + 0.5 - centres[:, None]).abs()
    triangle = (1 - distance / max(scale, 1.0)).clamp(min=0)
    weights = triangle / triangle.sum(dim=1, keepdim=True)
    return torch.floor(weights * _PIL_ONE + 0.5) / _PIL_ONE


def resample(
    pixels: Float64[Tensor, "images channels height width"],
    weights: Float64[Tensor, "after before"],
    *,
    axis: int,
) -> Float64[Tensor, "images channels new_height new_width"]:
    """One pass along one axis, rounded to grey levels as PIL does after every pass."""
    sums = pixels @ weights.T if axis == -1 else weights @ pixels
    return (sums + 0.5).floor_().clamp_(0, 255)
