"""Augmentation of batches: random translation with a black border, and horizontal flips.

Drawing is apart from applying. An epoch's draws are a function of (seed, epoch, image), so that neither the
batch size nor the order changes what happens to an image.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int64, UInt8
from torch import Tensor

from fisherkit.training.seeds import derive_seed

PADDING = 4  # the papers: translation up to 4 px


@dataclass(frozen=True, eq=False)
class AugmentationDraws:
    """For every image of the training set: the corner of its crop in the padded image, and whether it is flipped.

    A corner of (PADDING, PADDING) is the image as it is.
    """

    corners: Int64[Tensor, "images 2"]
    flips: Bool[Tensor, "images"]

    def to(self, device: torch.device) -> "AugmentationDraws":
        """The same draws on another device."""
        return AugmentationDraws(self.corners.to(device), self.flips.to(device))


def draw_augmentation(images: int, names: Sequence[str], *, seed: int, epoch: int) -> AugmentationDraws:
    """The draws of one epoch for `crop` and `flip`, where named; either alone has the same draws as both."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "augmentation", epoch))
    corners = torch.randint(0, 2 * PADDING + 1, (images, 2), generator=generator)
    flips = torch.randint(0, 2, (images,), generator=generator) == 1
    return AugmentationDraws(
        corners=corners if "crop" in names else torch.full_like(corners, PADDING),
        flips=flips if "flip" in names else torch.zeros_like(flips),
    )


def augment_given(
    pixels: UInt8[Tensor, "batch channels height width"],
    corners: Int64[Tensor, "batch 2"],
    flips: Bool[Tensor, "batch"],
) -> UInt8[Tensor, "batch channels height width"]:
    """Translate and flip each image as drawn; pixels from outside are 0, as in torchvision's RandomCrop(padding=4).

    out[b, c, y, x] = padded[b, c, y + corner[b, 0], x' + corner[b, 1]], where x' is x, or width - 1 - x where
    flipped: one gather on uint8, several times faster than slices per image.
    """
    batch, channels, height, width = pixels.shape
    padded = F.pad(pixels, (PADDING,) * 4)
    across = torch.arange(width, device=pixels.device)
    columns = torch.where(flips[:, None], width - 1 - across, across) + corners[:, 1:]  # [batch, width]
    rows = torch.arange(height, device=pixels.device) + corners[:, :1]  # [batch, height]
    places = rows[:, :, None] * (width + 2 * PADDING) + columns[:, None, :]  # [batch, height, width]
    places = places.view(batch, 1, height * width).expand(-1, channels, -1)
    return padded.view(batch, channels, -1).gather(2, places).view(batch, channels, height, width)
