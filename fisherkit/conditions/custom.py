"""A deficit of the user's own: `package.module:callable`."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fisherkit.conditions.callables import current_directory_importable, load_callable
from fisherkit.conditions.deficit import Deficit
from fisherkit.conditions.grammar import is_target
from fisherkit.images.image_set import ImageSet


@dataclass(frozen=True)
class CustomDeficit(Deficit):
    """Pixels changed by `callable(images, *arguments)`, of the user's own.

    The callable gets a uint8 tensor [images, channels, height, width], a copy it may change, and returns one
    of the same shape. The global generators of torch are seeded for it, and put back.
    """

    target: str
    arguments: tuple[int | float, ...] = ()

    def __post_init__(self) -> None:
        if not is_target(self.target):
            raise ValueError(f"target must have the form package.module:callable; got {self.target!r}.")
        for value in self.arguments:
            if not _is_number(value):
                raise ValueError(f"arguments of {self.target} must be finite numbers; got {value!r}.")

    @property
    def name(self) -> str:
        """The target."""
        return self.target

    def __str__(self) -> str:
        return f"{self.target}({','.join(map(repr, self.arguments))})" if self.arguments else self.target

    def apply(self, images: ImageSet, *, seed: int, epoch: int = 0) -> ImageSet:
        """The callable's images; raises ValueError naming it where it fails or returns something else."""
        deficit = load_callable(self.target, "deficit")
        with current_directory_importable(), _seeded(self.derived_seed(seed), images.images.device):
            try:
                result = deficit(images.images.clone(), *self.arguments)
            except Exception as error:
                raise ValueError(f"deficit {self} failed: {type(error).__name__}: {error}.") from error
        return replace(images, images=self._checked(result, images.images))

    def _checked(self, result: Any, before: Tensor) -> Tensor:
        wanted = f"a uint8 tensor of shape {tuple(before.shape)} on {before.device}"
        if not isinstance(result, Tensor):
            raise ValueError(f"deficit {self} must return {wanted}; got a {type(result).__name__}.")
        if (result.dtype, result.shape, result.device) != (before.dtype, before.shape, before.device):
            got = f"{result.dtype} of shape {tuple(result.shape)} on {result.device}"
            raise ValueError(f"deficit {self} must return {wanted}; got {got}.")
        return result


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """The global generators of the CPU and of the device seeded, and as before afterwards."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        for each in devices:
            torch.cuda.default_generators[each.index].manual_seed(seed)
        yield


def _is_number(value: Any) -> bool:
    if isinstance(value, int):
        return not isinstance(value, bool) and abs(value) < 2**63
    return isinstance(value, float) and math.isfinite(value)
