"""A labelled set of images as one tensor: the value that every other part reads."""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled images: one uint8 tensor [images, channels, height, width] and int64 labels, on one device.

    `mean` and `std` are per channel, of pixels scaled to [0, 1]. `notices` are sentences a user should see,
    such as "the checksum differs from the official release". Images and labels are never changed in place:
    `dataclasses.replace` makes the changed set.
    """

    images: UInt8[Tensor, "images channels height width"]
    labels: Int64[Tensor, "images"]
    classes: tuple[str, ...]
    name: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    notices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_tensors(self.images, self.labels)
        _check_labels(self.labels, self.classes)
        _check_normalisation(self.mean, self.std, channels=self.images.shape[1])

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        shape = " x ".join(str(size) for size in self.images.shape[1:])
        return f"ImageSet({self.name!r}, {len(self):,} images of {shape}, {len(self.classes)} classes)"

    @cached_property
    def digest(self) -> str:
        """The sha256 over shape, images and labels, in hex: the same contents have the same on any device."""
        content = hashlib.sha256(repr(tuple(self.images.shape)).encode())
        for tensor in (self.images, self.labels):
            content.update(tensor.contiguous().cpu().numpy().data)
        return content.hexdigest()

    def to(self, device: torch.device | str) -> "ImageSet":
        """The same set on another device."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))

    def select(self, indices: Int64[Tensor, "selected"]) -> "ImageSet":
        """The images at these indices, in this order."""
        return replace(self, images=self.images[indices], labels=self.labels[indices])

    def normalised(
        self, indices: Int64[Tensor, "batch"] | None = None
    ) -> Float32[Tensor, "batch channels height width"]:
        """(x / 255 - mean) / std of all images, or of those at the indices."""
        pixels = self.images if indices is None else self.images[indices]
        mean, std = (
            torch.tensor(values, dtype=torch.float32, device=pixels.device).view(1, -1, 1, 1)
            for values in (self.mean, self.std)
        )
        return (pixels.float() / 255 - mean) / std

    def subset(self, count: int, *, seed: int) -> "ImageSet":
        """A class-balanced part of the set: the counts of the classes that occur in it differ by at most 1.

        A function of the set, the count and the seed. Subsets of one seed are nested: the first images of a
        larger one are the smaller one.
        """
        if count < 1:
            raise ValueError(f"count must be at least 1; got {count!r}.")
        if count > len(self):
            raise ValueError(f"count must be at most {len(self)}, the images in {self.name}; got {count!r}.")
        order = balanced_order(self.labels.cpu(), len(self.classes), seed=seed)
        if count > len(order):
            raise ValueError(self._scarcity(count, available=len(order)))
        return self.select(order[:count].to(self.labels.device))

    def _scarcity(self, count: int, *, available: int) -> str:
        """Why a balanced subset of this count does not exist."""
        sizes = torch.bincount(self.labels.cpu(), minlength=len(self.classes))
        scarcest = int(torch.where(sizes > 0, sizes, len(self)).argmin())
        return (
            f"count must be at most {available} for a class-balanced subset of {self.name}, because class "
            f"{self.classes[scarcest]!r} has only {int(sizes[scarcest])} images; got {count!r}."
        )


def balanced_order(labels: Int64[Tensor, "images"], classes: int, *, seed: int) -> Int64[Tensor, "ordered"]:
    """Indices in rounds of one random image per class, in a random order of the classes in each round.

    Every prefix is class-balanced. The order ends with the round in which the scarcest class runs out; a class that
    has no image at all does not count.
    """
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(labels), generator=generator)
    keys = torch.rand(len(labels), dtype=torch.float64, generator=generator)
    # sort by class, random inside a class; the rank inside its class is the round an image is taken in
    by_class = shuffled[torch.argsort(labels[shuffled], stable=True)]
    sizes = torch.bincount(labels, minlength=classes)
    starts = torch.repeat_interleave(sizes.cumsum(0) - sizes, sizes)
    rounds = torch.arange(len(labels)) - starts
    keep = rounds <= sizes[sizes > 0].min()
    by_class, position = by_class[keep], rounds[keep] + keys[keep]
    return by_class[torch.argsort(position, stable=True)]


def _check_tensors(images: Tensor, labels: Tensor) -> None:
    if images.dtype != torch.uint8 or images.ndim != 4:
        raise ValueError(
            "images must be a uint8 tensor [images, channels, height, width]; "
            f"got {images.dtype} with shape {tuple(images.shape)}."
        )
    if labels.dtype != torch.int64 or labels.ndim != 1:
        raise ValueError(
            f"labels must be an int64 tensor [images]; got {labels.dtype} with shape {tuple(labels.shape)}."
        )
    if len(images) != len(labels):
        raise ValueError(f"labels must be one per image; got {len(labels)} labels for {len(images)} images.")
    if images.numel() == 0:
        raise ValueError(f"images must hold at least 1 image of at least 1 pixel; got {tuple(images.shape)}.")
    if images.device != labels.device:
        raise ValueError(
            f"labels must be on the device of the images, {images.device}; got {labels.device}. "
            "Move the whole set with ImageSet.to(device)."
        )


def _check_labels(labels: Tensor, classes: tuple[str, ...]) -> None:
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= len(classes):
        wrong = low if low < 0 else high
        raise ValueError(f"labels must be from 0 to {len(classes) - 1} for {len(classes)} classes; got {wrong}.")


def _check_normalisation(mean: tuple[float, ...], std: tuple[float, ...], *, channels: int) -> None:
    if len(mean) != channels or len(std) != channels:
        raise ValueError(f"mean and std must have one value per channel ({channels}); got {len(mean)} and {len(std)}.")
    if not all(0 < value < float("inf") for value in std):
        raise ValueError(f"std must be positive and finite; got {std!r}.")
