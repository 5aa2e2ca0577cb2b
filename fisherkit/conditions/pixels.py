"""Deficits of the pixels."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from fisherkit.conditions.deficit import Deficit
from fisherkit.images.image_set import ImageSet

_CHUNK = 4096


@dataclass(frozen=True)
class Flip(Deficit):
    """Images upside down: keeps the low-level statistics, the papers' negative control."""

    name = "flip"

    def apply(self, images: ImageSet, *, seed: int, epoch: int = 0) -> ImageSet:
        """The first row last; no random numbers."""
        return replace(images, images=images.images.flip(2))


@dataclass(frozen=True)
class Noise(Deficit):
    """Every image replaced by white noise, uniform over the 256 grey levels, drawn anew every epoch."""

    name = "noise"
    augmentation = False
    redrawn = True

    def apply(self, images: ImageSet, *, seed: int, epoch: int = 0) -> ImageSet:
        """Independent pixels, a function of seed and epoch."""
        shape = images.images.shape
        # eight grey levels from every 64-bit draw: eight times as fast as a draw per pixel
        words = torch.empty((images.images.numel() + 7) // 8, dtype=torch.int64)
        words.random_(-(2**63), None, generator=self.generator(seed, epoch))
        levels = words.view(torch.uint8)[: images.images.numel()].view(shape)
        return replace(images, images=levels.to(images.images.device))


@dataclass(frozen=True)
class Grayscale(Deficit):
    """Luminance 0.299 R + 0.587 G + 0.114 B (ITU-R 601) in every channel."""

    name = "grayscale"

    def apply(self, images: ImageSet, *, seed: int, epoch: int = 0) -> ImageSet:
        """The grey images; no random numbers. Raises ValueError unless there are 3 channels."""
        channels = images.images.shape[1]
        if channels != 3:
            raise ValueError(
                f"grayscale must have images of 3 channels; got {channels} in {images.name}. "
                "It would change nothing here: choose another deficit."
            )
        grey = torch.cat([luminance(chunk) for chunk in torch.split(images.images, _CHUNK)])
        return replace(images, images=grey.expand(-1, 3, -1, -1).contiguous())


def luminance(
    images: UInt8[Tensor, "images 3 height width"],
) -> UInt8[Tensor, "images 1 height width"]:
    """ITU-R 601 luminance in PIL's fixed point: weights in units of 2^-16, rounded to the nearest level."""
    red, green, blue = images.to(torch.int32).unbind(1)
    grey = (19595 * red + 38470 * green + 7471 * blue + 2**15) >> 16
    return grey.to(torch.uint8)[:, None]


@dataclass(frozen=True)
class Occlude(Deficit):
    """A square of the set's mean colour over a part of every image, at a random place fixed by the seed."""

    size: int = 16
    name = "occlude"

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size of occlude must be a whole number >= 1; got {self.size!r}.")

    def apply(self, images: ImageSet, *, seed: int, epoch: int = 0) -> ImageSet:
        """The occluded images; the whole square lies inside the image."""
        count, _, height, width = images.images.shape
        if self.size >= min(height, width):
            raise ValueError(f"size of occlude must be smaller than the images, {height} x {width}; got {self.size!r}.")
        generator = self.generator(seed)
        tops, lefts = (
            torch.randint(side - self.size + 1, (count,), generator=generator).to(images.images.device)
            for side in (height, width)
        )
        colour = torch.tensor([round(255 * level) for level in images.mean], dtype=torch.uint8)
        covered = occluded(images.images, tops, lefts, size=self.size, colour=colour)
        return replace(images, images=covered)


def occluded(
    images: UInt8[Tensor, "images channels height width"],
    tops: Int64[Tensor, "images"],
    lefts: Int64[Tensor, "images"],
    *,
    size: int,
    colour: UInt8[Tensor, "channels"],
) -> UInt8[Tensor, "images channels height width"]:
    """Images with the square [top, top + size) x [left, left + size) of each in one colour."""
    rows, columns = (_inside(starts, size, side) for starts, side in zip((tops, lefts), images.shape[2:], strict=True))
    fill = colour.to(images.device)[:, None, None]
    covered = torch.empty_like(images)
    for start in range(0, len(images), _CHUNK):
        part = slice(start, start + _CHUNK)
        square = rows[part, None, :, None] & columns[part, None, None, :]  # [images, 1, height, width]
        covered[part] = torch.where(square, fill, images[part])
    return covered


def _inside(starts: Tensor, size: int, side: int) -> Tensor:
    """Whether each of `side` positions lies in [start, start + size): bool [images, side]."""
    offset = torch.arange(side, device=starts.device) - starts[:, None]
    return (offset >= 0) & (offset < size)
