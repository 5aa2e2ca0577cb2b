"""Deficits of the labels."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Int64
from torch import Tensor

from fisherkit.conditions.deficit import Deficit
from fisherkit.images.image_set import ImageSet


@dataclass(frozen=True)
class Permute(Deficit):
    """Every class under the label of another: one permutation of the classes, fixed by the seed.

    The permutation is a uniform derangement, so that no class keeps its label.
    """

    touches = "labels"
    name = "permute"

    def apply(self, images: ImageSet, *, seed: int, epoch: int = 0) -> ImageSet:
        """label -> permutation[label]. Raises ValueError unless there are at least 2 classes."""
        classes = len(images.classes)
        if classes < 2:
            raise ValueError(f"permute must have at least 2 classes; got {classes} in {images.name}.")
        permutation = derangement(classes, self.generator(seed)).to(images.labels.device)
        return replace(images, labels=permutation[images.labels])


def derangement(count: int, generator: torch.Generator) -> Int64[Tensor, "count"]:
    """A permutation without a fixed point, uniform over all such, by rejection (2.7 draws on average)."""
    identity = torch.arange(count)
    while True:
        permutation = torch.randperm(count, generator=generator)
        if not (permutation == identity).any():
            return permutation


@dataclass(frozen=True)
class Shuffle(Deficit):
    """Labels shuffled over the examples, fixed by the seed: class counts stay, the meaning goes."""

    touches = "labels"
    name = "shuffle"

    def apply(self, images: ImageSet, *, seed: int, epoch: int = 0) -> ImageSet:
        """The labels in a random order."""
        order = torch.randperm(len(images), generator=self.generator(seed))
        return replace(images, labels=images.labels[order.to(images.labels.device)])
