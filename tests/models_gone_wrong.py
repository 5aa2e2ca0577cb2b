"""Models whose numbers go wrong at a chosen step, or whose layers get no gradient: `models_gone_wrong:callable`."""

import torch
from torch import Tensor, nn


class Wrong(nn.Module):
    """Two linear layers; what the first gives is multiplied in the given training step, from 1."""

    def __init__(self, inputs: int, classes: int, *, step: int, factor: float) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(inputs, 4), nn.Linear(4, classes)
        self.wrong = Factor(step, factor)

    def forward(self, images: Tensor) -> Tensor:
        hidden: Tensor = self.last(self.wrong(self.first(images.flatten(1))))
        return hidden


class Factor(nn.Module):
    """Multiplies in one training step and those after it; the step is a buffer, so that a resumed run counts on."""

    def __init__(self, step: int, factor: float) -> None:
        super().__init__()
        self.step, self.factor = step, factor
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, values: Tensor) -> Tensor:
        self.seen += self.training
        return values * (self.factor if self.training and self.seen >= self.step else 1.0)


def nan_at_5(classes: int, channels: int, image_size: int) -> nn.Module:
    return Wrong(channels * image_size**2, classes, step=5, factor=float("nan"))


def infinite_at_5(classes: int, channels: int, image_size: int) -> nn.Module:
    return Wrong(channels * image_size**2, classes, step=5, factor=float("inf"))


class Idle(nn.Module):
    """A layer that is never used, one that is frozen, one that is multiplied by 0, and one that works."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.unused, self.frozen = nn.Linear(3, 3), nn.Linear(inputs, 4).requires_grad_(False)
        self.cut, self.last = nn.Linear(inputs, 4), nn.Linear(4, classes)

    def forward(self, images: Tensor) -> Tensor:
        x = images.flatten(1)
        logits: Tensor = self.last(self.frozen(x) + 0 * self.cut(x))
        return logits


def idle(classes: int, channels: int, image_size: int) -> nn.Module:
    return Idle(channels * image_size**2, classes)
