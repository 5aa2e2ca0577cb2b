"""The training loop that most people write: a DataLoader, transforms on single images, a step for each batch.

The transforms are torchvision's RandomCrop(32, padding=4), RandomHorizontalFlip, ToTensor and Normalize, written in
tensor operations.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from fisherkit.images import ImageSet

PADDING = 4
Transform = Callable[[Tensor], Tensor]


def random_crop(image: Tensor) -> Tensor:
    """The image moved by up to 4 pixels each way, with a black border."""
    height, width = image.shape[1:]
    padded = F.pad(image, (PADDING,) * 4)
    top = int(torch.randint(0, 2 * PADDING + 1, (1,)))
    left = int(torch.randint(0, 2 * PADDING + 1, (1,)))
    return padded[:, top : top + height, left : left + width]


def random_flip(image: Tensor) -> Tensor:
    """The image or, as likely, its mirror image."""
    return image.flip(-1) if torch.rand(1) < 0.5 else image


def to_tensor(image: Tensor) -> Tensor:
    """Pixels from 0 to 1."""
    return image.float().div(255)


class Normalize:
    """(x - mean) / std for each channel."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.mean, self.std = (torch.tensor(values).view(-1, 1, 1) for values in (mean, std))

    def __call__(self, image: Tensor) -> Tensor:
        return image.sub(self.mean).div_(self.std)


class SingleImages(Dataset[tuple[Tensor, int]]):
    """The images of a set one at a time, each through all transforms."""

    def __init__(self, images: ImageSet, transforms: Sequence[Transform]) -> None:
        self.pixels, self.labels, self.transforms = images.images, images.labels.tolist(), transforms

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = self.pixels[index]
        for transform in self.transforms:
            image = transform(image)
        return image, self.labels[index]


def loader(images: ImageSet, *, batch_size: int, workers: int, augment: bool) -> DataLoader[Any]:
    """All images in a new order every time, in batches; worker processes stay from epoch to epoch."""
    augmentation = (random_crop, random_flip) if augment else ()
    transforms = (*augmentation, to_tensor, Normalize(images.mean, images.std))
    return DataLoader(
        SingleImages(images, transforms),
        batch_size=batch_size,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )


def train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    bf16: bool = False,
    channels_last: bool = False,
) -> tuple[float, float]:
    """Mean loss and accuracy of an epoch in which every batch is a step."""
    device = next(model.parameters()).device
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model.train()
    loss_sum, correct, seen = 0.0, 0, 0
    for images, classes in batches:
        inputs = images.to(device, memory_format=layout, non_blocking=True)
        labels = classes.to(device, non_blocking=True)
        optimizer.zero_grad()
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            logits = model(inputs)
        loss = F.cross_entropy(logits.float(), labels)
        loss.backward()
        optimizer.step()
        loss_sum += loss.item() * len(labels)
        correct += int((logits.argmax(1) == labels).sum())
        seen += len(labels)
    return loss_sum / seen, correct / seen
