"""Augmentation against slices per image, and what its draws depend on."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from training_cases import training

from fisherkit.training import augment_given, draw_augmentation
from fisherkit.training.augmentation import PADDING


def slow_augmentation(pixels: Tensor, corners: Tensor, flips: Tensor) -> Tensor:
    """One image at a time: pad with black, cut out, flip."""
    height, width = pixels.shape[-2:]
    made = []
    for image, (top, left), flip in zip(pixels, corners.tolist(), flips.tolist(), strict=True):
        cropped = F.pad(image, (PADDING,) * 4)[:, top : top + height, left : left + width]
        made.append(cropped.flip(-1) if flip else cropped)
    return torch.stack(made)


@given(
    batch=st.integers(1, 7),
    channels=st.sampled_from([1, 3]),
    height=st.integers(5, 12),
    width=st.integers(5, 12),
    seed=st.integers(0, 1000),
)
@settings(deadline=None, max_examples=60)
def test_augmentation_equals_slices_per_image(batch: int, channels: int, height: int, width: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (batch, channels, height, width), dtype=torch.uint8, generator=generator)
    draws = draw_augmentation(batch, ("crop", "flip"), seed=seed, epoch=3)
    expected = slow_augmentation(pixels, draws.corners, draws.flips)
    assert torch.equal(augment_given(pixels, draws.corners, draws.flips), expected)


def test_every_corner_and_flip() -> None:
    corners = torch.cartesian_prod(torch.arange(9), torch.arange(9)).repeat(2, 1)
    flips = torch.arange(162) < 81
    pixels = torch.arange(1, 65, dtype=torch.uint8).view(1, 1, 8, 8).expand(162, 1, 8, 8).contiguous()
    expected = slow_augmentation(pixels, corners, flips)
    assert torch.equal(augment_given(pixels, corners, flips), expected)
    assert len(expected.view(162, -1).unique(dim=0)) == 162


def test_draws_cover_all_translations_evenly_and_flip_half() -> None:
    draws = draw_augmentation(40_500, ("crop", "flip"), seed=0, epoch=0)
    counts = torch.bincount(draws.corners[:, 0] * 9 + draws.corners[:, 1], minlength=81).double()
    # chi-squared with 80 degrees of freedom: mean 80, sd 12.6
    assert float(((counts - 500) ** 2 / 500).sum()) < 80 + 4 * 12.65
    assert abs(int(draws.flips.sum()) - 20_250) < 4 * 101


def test_draws_depend_on_seed_and_epoch() -> None:
    first = draw_augmentation(50, ("crop", "flip"), seed=0, epoch=0)
    for seed, epoch in ((0, 1), (1, 0)):
        assert not torch.equal(draw_augmentation(50, ("crop", "flip"), seed=seed, epoch=epoch).corners, first.corners)
    again = draw_augmentation(50, ("crop", "flip"), seed=0, epoch=0)
    assert torch.equal(again.corners, first.corners)
    assert torch.equal(again.flips, first.flips)


def test_crop_or_flip_alone_draw_what_they_draw_together() -> None:
    both = draw_augmentation(50, ("crop", "flip"), seed=2, epoch=1)
    crop = draw_augmentation(50, ("crop",), seed=2, epoch=1)
    flip = draw_augmentation(50, ("flip",), seed=2, epoch=1)
    assert torch.equal(crop.corners, both.corners)
    assert not crop.flips.any()
    assert torch.equal(flip.flips, both.flips)
    assert (flip.corners == PADDING).all()


def inputs_by_image(batch_size: int, *, fraction: str = "1") -> dict[int, Tensor]:
    """What the network sees of every image in the first epoch."""
    made = training(
        conditions={"augment": ["crop+flip"], "fraction": [fraction]}, batch_size=batch_size, channels_last=False
    )
    batches = made._start_epoch()
    rows = torch.cat([batches.batch(number)[0] for number in range(len(batches))])
    return dict(zip(batches.order.tolist(), rows, strict=True))


@pytest.mark.parametrize(("batch_size", "fraction"), [(7, "1"), (40, "1"), (8, "0.5")])
def test_an_image_is_augmented_alike_whatever_the_batch_size_and_fraction(batch_size: int, fraction: str) -> None:
    reference = inputs_by_image(8)
    assert len(reference) == 40
    for image, row in inputs_by_image(batch_size, fraction=fraction).items():
        assert torch.equal(row, reference[image])
