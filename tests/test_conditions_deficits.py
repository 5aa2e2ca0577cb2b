from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from random_sets import random_set

from fisherkit.conditions import (
    DEFICITS,
    Blur,
    Deficit,
    Flip,
    Grayscale,
    Noise,
    Occlude,
    Permute,
    Shuffle,
    apply_deficits,
)
from fisherkit.conditions.labels import derangement

ALL = [Blur(4), Flip(), Noise(), Permute(), Shuffle(), Grayscale(), Occlude(8)]
PIXELS = [deficit for deficit in ALL if deficit.touches == "pixels"]
LABELS = [deficit for deficit in ALL if deficit.touches == "labels"]
ids = {"ids": str}


def test_every_built_in_deficit_is_tested_here() -> None:
    assert {deficit.name for deficit in ALL} == set(DEFICITS)


def test_what_deficits_say_about_themselves() -> None:
    assert {deficit.name for deficit in LABELS} == {"permute", "shuffle"}
    assert [deficit.name for deficit in ALL if not deficit.augmentation] == ["noise"]
    assert [deficit.name for deficit in ALL if deficit.redrawn] == ["noise"]


@pytest.mark.parametrize("deficit", PIXELS, **ids)
def test_pixel_deficits_change_pixels_only(deficit: Deficit) -> None:
    images = random_set()
    changed = deficit.apply(images, seed=0)
    assert not torch.equal(changed.images, images.images)
    assert torch.equal(changed.labels, images.labels)
    assert (changed.mean, changed.std, changed.name) == (images.mean, images.std, images.name)


@pytest.mark.parametrize("deficit", LABELS, **ids)
def test_label_deficits_change_labels_only(deficit: Deficit) -> None:
    images = random_set()
    changed = deficit.apply(images, seed=0)
    assert not torch.equal(changed.labels, images.labels)
    assert changed.images is images.images


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 16, 24)], ids=str)
@pytest.mark.parametrize("deficit", [deficit for deficit in ALL if deficit.name != "grayscale"], **ids)
def test_other_shapes(deficit: Deficit, shape: tuple[int, int, int]) -> None:
    images = random_set(channels=shape[0], height=shape[1], width=shape[2])
    changed = deficit.apply(images, seed=0)
    assert changed.images.shape == images.images.shape
    assert changed.digest != images.digest


@pytest.mark.parametrize("deficit", ALL, **ids)
def test_pure_function_of_images_and_seed(deficit: Deficit) -> None:
    images = random_set()
    pixels, labels, state = images.images.clone(), images.labels.clone(), torch.get_rng_state()
    first, again = (deficit.apply(images, seed=3, epoch=5).digest for _ in range(2))
    assert first == again
    assert torch.equal(images.images, pixels)
    assert torch.equal(images.labels, labels)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("deficit", [Noise(), Permute(), Shuffle(), Occlude(8)], **ids)
def test_the_seed_matters(deficit: Deficit) -> None:
    images = random_set()
    assert deficit.apply(images, seed=0).digest != deficit.apply(images, seed=1).digest


@pytest.mark.parametrize("deficit", ALL, **ids)
def test_the_epoch_matters_only_where_redrawn(deficit: Deficit) -> None:
    images = random_set()
    same = deficit.apply(images, seed=0, epoch=0).digest == deficit.apply(images, seed=0, epoch=1).digest
    assert same is not deficit.redrawn


def test_flip_is_upside_down() -> None:
    images = random_set()
    flipped = Flip().apply(images, seed=0)
    assert torch.equal(flipped.images[:, :, 0], images.images[:, :, -1])
    assert Flip().apply(flipped, seed=0).digest == images.digest


def test_noise_is_white_and_uniform() -> None:
    noise = Noise().apply(random_set(100), seed=0).images
    levels = torch.bincount(noise.flatten().long(), minlength=256)
    expected = noise.numel() / 256
    chi_squared = ((levels - expected) ** 2 / expected).sum()
    assert abs(chi_squared - 255) < 4 * (2 * 255) ** 0.5
    pixels = (noise.double() - 127.5) / (65535 / 12) ** 0.5
    for shifted in (pixels.roll(1, 0), pixels.roll(1, 1), pixels.roll(1, 2), pixels.roll(1, 3)):
        assert abs((pixels * shifted).mean()) < 4 / pixels.numel() ** 0.5


def test_noise_of_any_number_of_pixels() -> None:
    images = random_set(3, channels=1, height=5, width=3)  # 45 pixels, not a multiple of 8
    assert Noise().apply(images, seed=0).images.shape == (3, 1, 5, 3)


def test_permute_maps_every_class_to_another() -> None:
    images = random_set(50, classes=10)
    for seed in range(20):
        changed = Permute().apply(images, seed=seed)
        pairs = set(zip(images.labels.tolist(), changed.labels.tolist(), strict=True))
        assert len(pairs) == 10
        assert {label for _, label in pairs} == set(range(10))
        assert all(before != after for before, after in pairs)


def test_permute_of_train_and_test_is_one() -> None:
    train, test = random_set(30), replace(random_set(20), name="random test")
    changed = [Permute().apply(images, seed=4).labels[:10].tolist() for images in (train, test)]
    assert changed[0] == changed[1]


def test_derangements_are_uniform() -> None:
    generator = torch.Generator().manual_seed(0)
    draws = 900
    counts = Counter(tuple(derangement(4, generator).tolist()) for _ in range(draws))
    assert len(counts) == 9  # !4
    assert all(abs(count - draws / 9) < 4 * (draws / 9) ** 0.5 for count in counts.values())


def test_permute_of_one_class_is_refused() -> None:
    with pytest.raises(ValueError, match="permute must have at least 2 classes; got 1 in random train"):
        Permute().apply(random_set(classes=1), seed=0)


def test_shuffle_keeps_the_class_counts() -> None:
    images = random_set(200)
    changed = Shuffle().apply(images, seed=0)
    assert torch.equal(torch.bincount(changed.labels), torch.bincount(images.labels))
    agreement = (changed.labels == images.labels).float().mean().item()
    assert agreement < 0.3  # 10 classes: 0.1 expected


def test_grayscale_equals_pil() -> None:
    image = pytest.importorskip("PIL.Image")
    images = random_set()
    grey = Grayscale().apply(images, seed=0).images
    for before, after in zip(images.images, grey, strict=True):
        wanted = np.asarray(image.fromarray(before.permute(1, 2, 0).numpy()).convert("L"))
        assert all(np.array_equal(wanted, channel) for channel in after.numpy())


def test_grayscale_weights() -> None:
    images = random_set(3, height=1, width=1)
    pure = 200 * torch.eye(3, dtype=torch.uint8)[:, :, None, None]
    grey = Grayscale().apply(replace(images, images=pure), seed=0).images
    assert grey[:, 0, 0, 0].tolist() == [round(200 * weight) for weight in (0.299, 0.587, 0.114)]


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_grayscale_without_colours_is_refused(channels: int) -> None:
    message = f"grayscale must have images of 3 channels; got {channels} in random train. It would change nothing"
    with pytest.raises(ValueError, match=message):
        Grayscale().apply(random_set(channels=channels), seed=0)


@pytest.mark.parametrize("size", [1, 8, 15])
def test_occlude_covers_one_square_in_the_mean_colour(size: int) -> None:
    images = random_set(60, height=16, width=24)
    plain = replace(images, images=torch.full_like(images.images, 255))
    changed = (Occlude(size).apply(plain, seed=0).images != 255).all(dim=1)  # [images, height, width]
    rows, columns = changed.any(dim=2), changed.any(dim=1)
    assert (changed == rows[:, :, None] & columns[:, None, :]).all()
    for sides in (rows, columns):
        assert (sides.sum(dim=1) == size).all()
        first = sides.float().argmax(dim=1)
        assert all(sides[index, start : start + size].all() for index, start in enumerate(first.tolist()))
        assert first.min() == 0
        assert first.max() == sides.shape[1] - size
    covered = Occlude(size).apply(images, seed=0).images
    colour = torch.tensor([51, 102, 153], dtype=torch.uint8)  # 0.2, 0.4, 0.6 of 255
    assert (covered.permute(0, 2, 3, 1)[changed] == colour).all()
    assert torch.equal(covered.permute(0, 2, 3, 1)[~changed], images.images.permute(0, 2, 3, 1)[~changed])


@pytest.mark.parametrize("size", [16, 40])
def test_occlude_must_leave_something(size: int) -> None:
    with pytest.raises(ValueError, match=f"size of occlude must be smaller than the images, 16 x 32; got {size}"):
        Occlude(size).apply(random_set(height=16), seed=0)


def test_deficits_compose_in_the_order_given() -> None:
    images = random_set()
    occluded = Occlude(8).apply(images, seed=1)
    assert apply_deficits(images, [Occlude(8), Blur(4)], seed=1).digest == Blur(4).apply(occluded, seed=1).digest
    assert (
        apply_deficits(images, [Blur(4), Occlude(8)], seed=1).digest
        != apply_deficits(images, [Occlude(8), Blur(4)], seed=1).digest
    )
    assert apply_deficits(images, [], seed=1) is images


def test_one_deficit_does_not_change_the_draws_of_another() -> None:
    images = random_set()
    alone = Permute().apply(images, seed=1).labels
    beside = apply_deficits(images, [Occlude(8), Noise(), Permute()], seed=1, epoch=3).labels
    assert torch.equal(alone, beside)


def test_redrawn_deficits_compose_with_the_epoch() -> None:
    images = random_set()
    assert apply_deficits(images, [Noise()], seed=1, epoch=3).digest == Noise().apply(images, seed=1, epoch=3).digest
