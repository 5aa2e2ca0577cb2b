import numpy as np
import pytest
import torch
from random_sets import random_set

from fisherkit.conditions import Blur
from fisherkit.conditions import blur as blur_module
from fisherkit.conditions.blur import resampling
from fisherkit.images.image_set import ImageSet

SIZES = {
    "cifar": (3, 32, 32),
    "mnist": (1, 28, 28),
    "one channel": (1, 32, 32),
    "oblong": (3, 16, 24),
    "two": (2, 8, 8),
}
FACTORS = [2, 4, 7, 8, 14, 16]
FITTING = [
    pytest.param(factor, *shape, id=f"{name}, {factor}")
    for name, shape in SIZES.items()
    for factor in FACTORS
    if all(side % factor == 0 and side > factor for side in shape[1:])
]


@pytest.mark.parametrize(("factor", "channels", "height", "width"), FITTING)
def test_equals_pil(factor: int, channels: int, height: int, width: int) -> None:
    image = pytest.importorskip("PIL.Image")
    images = random_set(50, channels=channels, height=height, width=width)
    blurred = Blur(factor).apply(images, seed=0).images
    for before, after in zip(images.images.flatten(0, 1), blurred.flatten(0, 1), strict=True):
        small = image.fromarray(before.numpy()).resize((width // factor, height // factor), image.Resampling.BILINEAR)
        large = small.resize((width, height), image.Resampling.BILINEAR)
        assert np.array_equal(np.asarray(large), after.numpy())


def test_agrees_with_torch_antialiased_interpolation() -> None:
    images = random_set(50)
    small = torch.nn.functional.interpolate(images.images.double(), size=8, mode="bilinear", antialias=True)
    large = torch.nn.functional.interpolate(small, size=32, mode="bilinear")
    difference = (Blur(4).apply(images, seed=0).images - large).abs()
    assert difference.max() < 2  # four roundings to grey levels
    assert difference.mean() < 0.5


@pytest.mark.parametrize(("before", "after"), [(32, 8), (8, 32), (28, 4), (32, 2), (2, 32)])
def test_resampling_weights_are_averages(before: int, after: int) -> None:
    weights = resampling(before, after)
    assert weights.shape == (after, before)
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(after).double(), rtol=0, atol=before * 2.0**-22)
    torch.testing.assert_close(weights, weights.flip(0, 1), rtol=0, atol=0)


def test_constant_images_stay() -> None:
    images = random_set(1)
    levels = torch.arange(256, dtype=torch.uint8)[:, None, None, None].expand(256, 3, 32, 32).clone()
    constant = ImageSet(levels, torch.zeros(256).long(), images.classes, "constant", images.mean, images.std)
    for factor in (2, 4, 16):
        assert torch.equal(Blur(factor).apply(constant, seed=0).images, levels)


def test_commutes_with_mirroring_and_channels() -> None:
    images = random_set(8)
    blurred = Blur(4).apply(images, seed=0).images
    first = ImageSet(images.images[:, :1], images.labels, images.classes, "first", images.mean[:1], images.std[:1])
    mirrored = ImageSet(images.images.flip(3), images.labels, images.classes, "mirrored", images.mean, images.std)
    assert torch.equal(Blur(4).apply(first, seed=0).images, blurred[:, :1])
    assert torch.equal(Blur(4).apply(mirrored, seed=0).images, blurred.flip(3))


def test_a_larger_factor_blurs_more() -> None:
    images = random_set(20)
    spreads = [Blur(factor).apply(images, seed=0).images.float().std().item() for factor in (2, 4, 8, 16)]
    assert spreads == sorted(spreads, reverse=True)
    assert spreads[0] < images.images.float().std()


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    images = random_set(20)
    whole = Blur(4).apply(images, seed=0)
    monkeypatch.setattr(blur_module, "_CHUNK_PIXELS", 3 * 3 * 32 * 32)
    assert torch.equal(Blur(4).apply(images, seed=0).images, whole.images)


@pytest.mark.parametrize(
    ("factor", "size", "choices"),
    [
        (3, (32, 32), "Choose from 2, 4, 8, 16."),
        (32, (32, 32), "Choose from 2, 4, 8, 16."),
        (64, (32, 32), "Choose from 2, 4, 8, 16."),
        (8, (28, 28), "Choose from 2, 4, 7, 14."),
        (2, (7, 7), "No factor fits this size."),
    ],
)
def test_a_factor_that_does_not_fit_lists_those_that_do(factor: int, size: tuple[int, int], choices: str) -> None:
    images = random_set(2, height=size[0], width=size[1])
    rule = f"factor of blur must divide the image size {size[0]} x {size[1]} and be smaller; got {factor}. {choices}"
    with pytest.raises(ValueError, match=rule):
        Blur(factor).apply(images, seed=0)
