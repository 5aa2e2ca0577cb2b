"""The training images of an epoch: under its deficits, in its order, those of its fraction, augmented as drawn."""

from typing import Any

import torch

from fisherkit.conditions import EpochConditions, apply_deficits
from fisherkit.images.image_set import ImageSet
from fisherkit.training.augmentation import draw_augmentation
from fisherkit.training.batches import EpochBatches, batch_bounds, epoch_order, fraction_members
from fisherkit.training.seeds import derive_seed


class EpochData:
    """Makes the batches of an epoch, a function of the images, the seed and the conditions of the epoch."""

    def __init__(self, images: ImageSet, *, batch_size: int, seed: int, channels_last: bool) -> None:
        self.images, self.batch_size, self.seed, self.channels_last = images, batch_size, seed, channels_last
        self._under_deficits: tuple[Any, ImageSet] | None = None

    @property
    def device(self) -> torch.device:
        """Where the batches are made."""
        return self.images.images.device

    def batches(self, plan: EpochConditions) -> EpochBatches:
        """The batches under these conditions."""
        seed, count = self.seed, len(self.images)
        order = epoch_order(count, seed=seed, epoch=plan.epoch)
        if plan.fraction < 1:
            labels, classes = self.images.labels.cpu(), len(self.images.classes)
            order = order[fraction_members(labels, plan.fraction, classes=classes, seed=seed)[order]]
        draws = draw_augmentation(count, plan.augment, seed=seed, epoch=plan.epoch) if plan.augment else None
        return EpochBatches(
            images=self._images_under(plan),
            order=order.to(self.device),
            bounds=batch_bounds(len(order), self.batch_size),
            draws=draws.to(self.device) if draws is not None else None,
            channels_last=self.channels_last,
        )

    def _images_under(self, plan: EpochConditions) -> ImageSet:
        """The training images under the deficits of the epoch, computed once for as long as they stay the same."""
        redrawn = any(deficit.redrawn for deficit in plan.deficits)
        key = (plan.deficits, plan.epoch if redrawn else None)
        if self._under_deficits is None or self._under_deficits[0] != key:
            self._under_deficits = None  # frees the old images before the new ones are made
            seed = derive_seed(self.seed, "deficits")
            images = apply_deficits(self.images, plan.deficits, seed=seed, epoch=plan.epoch)
            self._under_deficits = (key, images)
        return self._under_deficits[1]
