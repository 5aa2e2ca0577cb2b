"""What a deficit is: images -> images, and where its random numbers come from."""

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import ClassVar, Literal

import torch

from fisherkit.images.image_set import ImageSet


@dataclass(frozen=True)
class Deficit(ABC):
    """Something that is wrong with the images a network is trained on.

    `touches` says whether pixels or labels change; `augmentation` whether augmentation still applies;
    `redrawn` whether it is drawn anew every epoch. The text form, `name(arguments)`, parses back.
    """

    touches: ClassVar[Literal["pixels", "labels"]] = "pixels"
    augmentation: ClassVar[bool] = True
    redrawn: ClassVar[bool] = False

    @property
    @abstractmethod
    def name(self) -> str:
        """The name in the grammar of conditions."""

    @abstractmethod
    def apply(self, images: ImageSet, *, seed: int, epoch: int = 0) -> ImageSet:
        """The images under the deficit: a pure function of images, seed and, where redrawn, epoch."""

    def __str__(self) -> str:
        arguments = ",".join(str(getattr(self, field.name)) for field in fields(self))
        return f"{self.name}({arguments})" if arguments else self.name

    def generator(self, seed: int, epoch: int | None = None) -> torch.Generator:
        """A CPU generator of this deficit alone, so that another deficit beside it changes no draw."""
        return torch.Generator().manual_seed(self.derived_seed(seed, epoch))

    def derived_seed(self, seed: int, epoch: int | None = None) -> int:
        """63 bits of sha256 over seed, name and, for what is redrawn, the epoch."""
        source = f"{seed} {self.name}" if epoch is None else f"{seed} {self.name} {epoch}"
        return int.from_bytes(hashlib.sha256(source.encode()).digest()[:8], "little") >> 1
