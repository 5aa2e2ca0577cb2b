"""The batches of an epoch: which images, in which order, and how they become input of the network."""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Bool, Float32, Int64, UInt8
from torch import Tensor

from fisherkit.images.image_set import ImageSet
from fisherkit.training.augmentation import AugmentationDraws, augment_given
from fisherkit.training.seeds import derive_seed


@dataclass(frozen=True, eq=False)
class EpochBatches:
    """The batches of one epoch, by number, made on the device of the images.

    `order` holds the indices of the images to use; batch k is order[bounds[k]]. Without `draws` there is no
    augmentation.
    """

    images: ImageSet
    order: Int64[Tensor, "used"]
    bounds: tuple[tuple[int, int], ...]
    draws: AugmentationDraws | None
    channels_last: bool

    def __len__(self) -> int:
        return len(self.bounds)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The number of images in every batch."""
        return tuple(stop - start for start, stop in self.bounds)

    def batch(self, number: int) -> tuple[Float32[Tensor, "batch channels height width"], Int64[Tensor, "batch"]]:
        """Input and labels of one batch."""
        start, stop = self.bounds[number]
        indices = self.order[start:stop]
        pixels = self.images.images.index_select(0, indices)
        if self.draws is not None:
            pixels = augment_given(pixels, self.draws.corners[indices], self.draws.flips[indices])
        inputs = network_input(pixels, self.images, channels_last=self.channels_last)
        return inputs, self.images.labels.index_select(0, indices)


def network_input(
    pixels: UInt8[Tensor, "batch channels height width"], images: ImageSet, *, channels_last: bool
) -> Float32[Tensor, "batch channels height width"]:
    """(x / 255 - mean) / std with the set's mean and std: `ImageSet.normalised` for pixels at hand, to the bit."""
    mean, std = (_per_channel(values, pixels.device) for values in (images.mean, images.std))
    inputs = pixels.float().div_(255).sub_(mean).div_(std)
    return inputs.contiguous(memory_format=torch.channels_last) if channels_last else inputs


@lru_cache(maxsize=16)  # a copy to the device once, not in every step
def _per_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device).view(1, -1, 1, 1)


def batch_bounds(images: int, batch_size: int) -> tuple[tuple[int, int], ...]:
    """Where each batch starts and stops in the order; the last one holds the rest.

    A rest of a single image joins the batch before it: batch statistics of one image do not exist. (With
    batch_size 1, or one image in all, every batch is a single image.)
    """
    starts = list(range(0, images, batch_size))
    if images % batch_size == 1 and len(starts) > 1 and batch_size > 1:
        starts.pop()
    return tuple(zip(starts, [*starts[1:], images], strict=True))


def epoch_order(images: int, *, seed: int, epoch: int) -> Int64[Tensor, "images"]:
    """A random order of the images, a function of (seed, epoch)."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
    return torch.randperm(images, generator=generator)


def used_images(images: int, fraction: float) -> int:
    """The number of images in a fraction of the training set: fraction x images, rounded to the nearest."""
    count = math.floor(fraction * images + 0.5)
    if count < 1:
        raise ValueError(f"fraction must leave at least 1 of the {images} training images; got {fraction!r}.")
    return count


def fraction_members(
    labels: Int64[Tensor, "images"], fraction: float, *, classes: int, seed: int
) -> Bool[Tensor, "images"]:
    """Which images belong to this fraction of the training set.

    Every class is represented in proportion; the same images for the same seed, whatever the epoch, and those
    of a smaller fraction are among those of a larger one.
    """
    count = used_images(len(labels), fraction)
    member = torch.zeros(len(labels), dtype=torch.bool)
    member[_proportional_order(labels, classes=classes, seed=seed)[:count]] = True
    return member


def old_and_new_images(
    labels: Int64[Tensor, "images"], *, before: float, now: float, classes: int, seed: int
) -> tuple[Int64[Tensor, "old"], Int64[Tensor, "new"]]:
    """The images of a fraction that were, and that were not, in a smaller one before; classes in proportion in each.

    So are those of every prefix of the two.
    """
    order = _proportional_order(labels, classes=classes, seed=seed)
    old, all_now = (used_images(len(labels), fraction) for fraction in (before, now))
    return order[:old], order[old:all_now]


def _proportional_order(labels: Tensor, *, classes: int, seed: int) -> Tensor:
    """An order of all images whose every prefix has the classes in proportion.

    The image of rank r (random, from 0) among the n of its class has the place (r + 1/2) / n; equal places of
    several classes come in random order.
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, "fraction"))
    shuffled = torch.randperm(len(labels), generator=generator)
    by_class = torch.argsort(labels[shuffled], stable=True)
    sizes = torch.bincount(labels, minlength=classes)
    starts = torch.repeat_interleave(sizes.cumsum(0) - sizes, sizes)
    rank = torch.arange(len(labels), dtype=torch.float64) - starts
    place = torch.empty_like(rank)
    place[by_class] = (rank + 0.5) / torch.repeat_interleave(sizes, sizes)
    return shuffled[torch.argsort(place, stable=True)]
