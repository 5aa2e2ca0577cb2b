"""Which images, in which order, in which batches."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from training_cases import image_set, training

from fisherkit.training import epoch_order, fraction_members
from fisherkit.training.batches import batch_bounds, network_input, used_images


@given(images=st.integers(1, 300), batch_size=st.integers(1, 64))
@settings(deadline=None, max_examples=200)
def test_batches_cover_every_image_once_and_none_is_a_single_one(images: int, batch_size: int) -> None:
    bounds = batch_bounds(images, batch_size)
    assert bounds[0][0] == 0
    assert bounds[-1][1] == images
    assert all(stop == start for (_, stop), (start, _) in pairwise(bounds))
    sizes = [stop - start for start, stop in bounds]
    assert sizes[:-1] == [batch_size] * (len(sizes) - 1)
    assert 1 <= sizes[-1] <= batch_size + 1
    if batch_size > 1 and images > 1:
        assert sizes[-1] > 1


@pytest.mark.parametrize(
    ("images", "batch_size", "sizes"),
    [(40, 8, [8] * 5), (42, 8, [8] * 5 + [2]), (41, 8, [8] * 4 + [9]), (3, 8, [3]), (1, 8, [1]), (3, 1, [1] * 3)],
)
def test_the_rest_is_kept_and_a_single_image_joins_the_batch_before(
    images: int, batch_size: int, sizes: list[int]
) -> None:
    assert [stop - start for start, stop in batch_bounds(images, batch_size)] == sizes


def test_a_rest_of_one_image_trains_with_batch_norm() -> None:
    made = training(images=41)
    reports = list(made.steps())
    assert len(reports) == 2 * 5
    report = reports[-1].report
    assert report is not None
    assert report.images == 41


def test_order_is_a_permutation_and_a_function_of_seed_and_epoch() -> None:
    order = epoch_order(50, seed=0, epoch=3)
    assert torch.equal(order.sort().values, torch.arange(50))
    assert torch.equal(epoch_order(50, seed=0, epoch=3), order)
    assert not torch.equal(epoch_order(50, seed=0, epoch=4), order)
    assert not torch.equal(epoch_order(50, seed=1, epoch=3), order)


@given(
    labels=st.lists(st.integers(0, 3), min_size=4, max_size=60),
    fractions=st.tuples(st.floats(0.3, 1.0), st.floats(0.3, 1.0)),
    seed=st.integers(0, 100),
)
@settings(deadline=None, max_examples=60)
def test_fractions_are_nested_and_proportional(labels: list[int], fractions: tuple[float, float], seed: int) -> None:
    given_labels = torch.tensor(labels)
    small, large = (fraction_members(given_labels, fraction, classes=4, seed=seed) for fraction in sorted(fractions))
    assert not (small & ~large).any()
    assert int(large.sum()) == used_images(len(labels), max(fractions))
    share = int(large.sum()) / len(labels)
    for label in range(4):
        of_class = given_labels == label
        assert abs(int((large & of_class).sum()) - share * int(of_class.sum())) < 2


def test_a_fraction_of_a_balanced_set_has_class_counts_that_differ_by_at_most_one() -> None:
    labels = torch.arange(100) % 10
    for fraction in (0.1, 0.25, 0.5, 0.73):
        counts = torch.bincount(labels[fraction_members(labels, fraction, classes=10, seed=0)], minlength=10)
        assert int(counts.max() - counts.min()) <= 1


def test_different_seeds_choose_different_images() -> None:
    labels = torch.arange(100) % 10
    first, second = (fraction_members(labels, 0.5, classes=10, seed=seed) for seed in (0, 1))
    assert not torch.equal(first, second)


def test_a_fraction_that_leaves_no_image_is_refused_before_training() -> None:
    with pytest.raises(ValueError, match=r"fraction must leave at least 1 of the 40 training images; got 0.01"):
        training(conditions={"fraction": ["0.01:1-"]})


def test_input_is_normalised_as_the_image_set_does_it_to_the_bit() -> None:
    images = image_set(20)
    indices = torch.tensor([3, 1, 19])
    expected = images.normalised(indices)
    for channels_last in (False, True):
        made = network_input(images.images[indices], images, channels_last=channels_last)
        assert torch.equal(made, expected)
        assert made.is_contiguous(memory_format=torch.channels_last) == channels_last
