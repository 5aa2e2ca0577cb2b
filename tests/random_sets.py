"""Image sets of random pixels for tests."""

import torch

from fisherkit.images.image_set import ImageSet


def random_set(count: int = 20, *, channels: int = 3, height: int = 32, width: int = 32, classes: int = 10) -> ImageSet:
    """Random pixels, every class in turn, a mean that tells the channels apart."""
    generator = torch.Generator().manual_seed(0)
    return ImageSet(
        images=torch.randint(256, (count, channels, height, width), dtype=torch.uint8, generator=generator),
        labels=torch.arange(count) % classes,
        classes=tuple(f"class {index}" for index in range(classes)),
        name="random train",
        mean=tuple(0.2 * (channel + 1) for channel in range(channels)),
        std=(0.25,) * channels,
    )
