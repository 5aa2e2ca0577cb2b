"""Tiny image sets and networks for the tests of training."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from fisherkit.conditions import Conditions
from fisherkit.images import ImageSet
from fisherkit.training import EpochReport, Training, TrainingOptions

CLASSES = ("round", "square", "star")


def image_set(count: int = 40, *, size: int = 8, channels: int = 3, seed: int = 0, name: str = "tiny") -> ImageSet:
    """Random images whose brightness tells their class, more or less."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % len(CLASSES)
    noise = torch.randint(0, 120, (count, channels, size, size), generator=generator)
    images = (noise + 60 * labels.view(-1, 1, 1, 1)).to(torch.uint8)
    return ImageSet(images, labels, CLASSES, name, mean=(0.5,) * channels, std=(0.25,) * channels)


def linear_net(seed: int = 0) -> nn.Module:
    """Fully connected, no batch-norm."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 6), nn.ReLU(), nn.Linear(6, len(CLASSES)))


def conv_net(seed: int = 0, *, dropout: float = 0.0) -> nn.Module:
    """A convolution, batch-norm, dropout and a linear layer."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(16, len(CLASSES)),
        )


def dropout_net(seed: int = 0) -> nn.Module:
    """`conv_net` with dropout, so that every kind of random number is at work."""
    return conv_net(seed, dropout=0.2)


def training(
    make_model: Callable[[int], nn.Module] = conv_net,
    *,
    conditions: Mapping[str, Any] | None = None,
    images: int = 40,
    model_seed: int = 0,
    **options: Any,
) -> Training:
    """A training on tiny images: two epochs of five steps unless told otherwise."""
    return Training(
        make_model(model_seed),
        image_set(images),
        image_set(30, seed=1, name="tiny test"),
        TrainingOptions(**{"epochs": 2, "batch_size": 8, **options}),
        Conditions.parse(**(conditions or {})),
        fresh_model=make_model,
    )


def assert_same_weights(model: nn.Module, other: nn.Module) -> None:
    """Every parameter and buffer is equal to the bit."""
    tensors, others = model.state_dict(), other.state_dict()
    assert tensors.keys() == others.keys()
    different = [name for name, tensor in tensors.items() if not torch.equal(tensor, others[name])]
    assert not different, f"these differ: {different}"


def same_weights(model: nn.Module, other: nn.Module) -> bool:
    """Whether every parameter and buffer is equal to the bit."""
    others = other.state_dict()
    return all(torch.equal(tensor, others[name]) for name, tensor in model.state_dict().items())


def numbers(report: EpochReport) -> dict[str, Any]:
    """A report without what the clock says."""
    return {name: value for name, value in vars(report).items() if name != "elapsed_s"}
