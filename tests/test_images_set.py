from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from random_sets import random_set

from fisherkit.images.image_set import ImageSet, _check_tensors, balanced_order


def set_with(labels: list[int], classes: int = 3) -> ImageSet:
    images = torch.arange(len(labels), dtype=torch.uint8).repeat_interleave(4).reshape(-1, 1, 2, 2)
    names = tuple("abcdefghij"[:classes])
    return ImageSet(images, torch.tensor(labels), names, "small train", (0.5,), (0.25,))


def test_length_and_repr() -> None:
    images = set_with([0, 1, 2, 0])
    assert len(images) == 4
    assert repr(images) == "ImageSet('small train', 4 images of 1 x 2 x 2, 3 classes)"


def test_normalised_is_pixel_over_255_minus_mean_over_std() -> None:
    images = replace(random_set(5), mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    expected = (images.images.double() / 255 - torch.tensor([0.1, 0.2, 0.3]).double()[:, None, None]) / (
        torch.tensor([0.5, 0.6, 0.7]).double()[:, None, None]
    )
    torch.testing.assert_close(images.normalised().double(), expected, rtol=1e-5, atol=1e-6)
    assert images.normalised().dtype == torch.float32


def test_normalised_of_indices_is_part_of_the_whole() -> None:
    images = random_set(6)
    indices = torch.tensor([4, 0, 4])
    assert torch.equal(images.normalised(indices), images.normalised()[indices])


def test_select_keeps_order_and_everything_else() -> None:
    images = replace(set_with([0, 1, 2, 1]), notices=("mind this",))
    chosen = images.select(torch.tensor([3, 0]))
    assert chosen.images[:, 0, 0, 0].tolist() == [3, 0]
    assert chosen.labels.tolist() == [1, 0]
    assert (chosen.classes, chosen.name, chosen.notices) == (images.classes, images.name, images.notices)


def test_to_the_same_device_keeps_contents() -> None:
    images = set_with([0, 1])
    assert images.to("cpu").digest == images.digest


def test_digest_sees_images_labels_and_shape() -> None:
    images = set_with([0, 1, 2, 0])
    others = [
        replace(images, images=images.images.flip(0)),
        replace(images, labels=images.labels.flip(0) * 0),
        replace(images, images=images.images.reshape(4, 1, 4, 1)),
    ]
    assert len({images.digest, *(other.digest for other in others)}) == 4
    assert images.digest == set_with([0, 1, 2, 0]).digest
    assert images.digest == replace(images, name="other", mean=(0.0,)).digest
    assert len(images.digest) == 64


def test_digest_is_of_the_values_not_of_the_memory_layout() -> None:
    images = random_set(3)
    assert replace(images, images=images.images.contiguous(memory_format=torch.channels_last)).digest == images.digest


@settings(deadline=None, max_examples=60)
@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=60),
    seed=st.integers(0, 2**63 - 1),
)
def test_every_prefix_of_the_balanced_order_is_balanced(labels: list[int], seed: int) -> None:
    tensor = torch.tensor(labels)
    order = balanced_order(tensor, 5, seed=seed)
    assert len(set(order.tolist())) == len(order)
    sizes = torch.bincount(tensor, minlength=5)
    occur = sizes > 0  # a class without images does not count
    # the longest balanced prefix there can be: one round more than the scarcest class lasts
    assert len(order) == sizes.clamp(max=int(sizes[occur].min()) + 1).sum()
    for count in range(1, len(order) + 1):
        counts = torch.bincount(tensor[order[:count]], minlength=5)[occur]
        assert counts.max() - counts.min() <= 1


def test_subsets_of_a_seed_are_nested_and_reproducible() -> None:
    images = random_set(200)
    large, small = images.subset(55, seed=3), images.subset(13, seed=3)
    assert torch.equal(large.images[:13], small.images)
    assert torch.equal(large.labels[:13], small.labels)
    assert images.subset(55, seed=3).digest == large.digest


def test_subsets_of_other_seeds_differ_and_leave_the_global_generator_alone() -> None:
    images = random_set(200)
    before = torch.get_rng_state()
    assert images.subset(55, seed=3).digest != images.subset(55, seed=4).digest
    assert torch.equal(torch.get_rng_state(), before)


def test_every_image_is_as_likely_as_every_other_of_its_class() -> None:
    images = set_with([0] * 10 + [1] * 10, classes=2)
    taken = torch.zeros(20)
    for seed in range(400):
        taken += torch.bincount(images.subset(4, seed=seed).images[:, 0, 0, 0].long(), minlength=20)
    # 400 draws at 1/5: the deviation is 8, and 4 deviations are allowed
    assert ((taken - 80).abs() < 32).all()


def test_the_classes_of_an_incomplete_round_are_drawn_too() -> None:
    images = set_with([0, 1, 2] * 4)
    first = torch.cat([images.subset(1, seed=seed).labels for seed in range(300)]).bincount(minlength=3)
    # 300 draws at 1/3: the deviation is 8.2, and 4 deviations are allowed
    assert ((first - 100).abs() < 33).all()


def test_whole_balanced_set_is_a_subset_of_itself() -> None:
    images = set_with([0, 1, 2] * 4)
    assert sorted(images.subset(12, seed=0).images[:, 0, 0, 0].tolist()) == list(range(12))


@pytest.mark.parametrize(
    ("count", "message"),
    [
        (0, r"count must be at least 1; got 0\."),
        (-3, r"count must be at least 1; got -3\."),
        (8, r"count must be at most 7, the images in small train; got 8\."),
        (6, r"count must be at most 5 .* class 'c' has only 1 images; got 6\."),
    ],
)
def test_impossible_counts_are_refused(count: int, message: str) -> None:
    images = set_with([0, 0, 0, 1, 1, 1, 2])
    with pytest.raises(ValueError, match=message):
        images.subset(count, seed=0)
    assert images.subset(5, seed=0).labels.bincount().tolist() == [2, 2, 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": torch.tensor([0, 1, 3])}, "labels must be from 0 to 2 for 3 classes; got 3"),
        ({"labels": torch.tensor([0, -1, 2])}, "labels must be from 0 to 2 for 3 classes; got -1"),
        ({"mean": (0.5, 0.5)}, r"one value per channel \(1\); got 2 and 1"),
        ({"std": (0.0,)}, r"std must be positive and finite; got \(0\.0,\)"),
        ({"std": (float("nan"),)}, "std must be positive and finite"),
    ],
)
def test_inconsistent_sets_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(set_with([0, 1, 2]), **changes)  # type: ignore[arg-type]


def test_empty_sets_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 image"):
        set_with([0, 1]).select(torch.tensor([], dtype=torch.int64))


IMAGES = torch.zeros(3, 1, 2, 2, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (IMAGES.float(), torch.zeros(3).long(), "images must be a uint8 tensor .*; got torch.float32"),
        (IMAGES[0], torch.zeros(3).long(), r"images must be a uint8 tensor .* shape \(1, 2, 2\)"),
        (IMAGES, torch.zeros(3), "labels must be an int64 tensor"),
        (IMAGES, torch.zeros(4).long(), "labels must be one per image; got 4 labels for 3 images"),
        (IMAGES, torch.zeros(3, device="meta").long(), "device of the images, cpu; got meta"),
    ],
)
def test_wrong_tensors_are_refused(images: torch.Tensor, labels: torch.Tensor, message: str) -> None:
    # the check itself: in the tests jaxtyping stops such tensors before it, for users it does not
    with pytest.raises(ValueError, match=message):
        _check_tensors(images, labels)


def test_jaxtyping_guards_the_constructor_in_the_tests() -> None:
    with pytest.raises(TypeCheckError):
        replace(set_with([0, 1, 2]), labels=torch.zeros(2).long())


def test_indices_may_come_from_numpy() -> None:
    images = set_with([0, 1, 2])
    assert images.select(torch.from_numpy(np.array([2]))).labels.tolist() == [2]
