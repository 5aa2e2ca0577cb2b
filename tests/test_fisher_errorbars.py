"""Error bars hold: 95 % intervals cover the truth at their nominal rate, on real images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import fisherkit
from fisherkit.fisher import fisher_trace
from fisherkit.fisher.tally import Column

SEEDS = 200
IMAGES = 1000


@pytest.fixture(scope="module")
def pool():
    train, _ = fisherkit.load_images("fashion-mini")
    return nn.functional.avg_pool2d(train.normalised()[:1500], 4).flatten(1), train.labels[:1500]


def network(name: str) -> nn.Module:
    """untrained, fitted (train loss 0.03) or overfitted (0.002): see data/make_networks.py."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    if name != "untrained":
        stored = np.load(Path(__file__).parent / "data" / "networks.npz")
        model.load_state_dict({key: torch.from_numpy(stored[f"{name}.{key}"]) for key in model.state_dict()})
    return model


def coverage(model, pool, estimator: str, *, images: int = IMAGES, draws: int = 1) -> tuple[float, float]:
    """How often trace +- 1.96 stderr covers the truth over `SEEDS` samples, and the mean relative stderr."""
    x, y = pool
    truth = fisher_trace(model, x, y, estimator="empirical" if estimator == "empirical" else "exact").total
    hits, bars = 0, []
    for seed in range(SEEDS):
        rows = torch.randint(0, len(x), (images,), generator=torch.Generator().manual_seed(10_000 + seed))
        result = fisher_trace(model, x[rows], y[rows], estimator=estimator, draws=draws, seed=seed, batch_size=images)
        hits += abs(result.total - truth) <= 1.96 * result.total_stderr
        bars.append(result.total_stderr / truth)
    return hits / SEEDS, float(np.mean(bars))


@pytest.mark.parametrize("estimator", ["exact", "empirical", "propagated"])
@pytest.mark.parametrize("name", ["untrained", "fitted"])
def test_intervals_cover_at_their_nominal_rate(pool, name: str, estimator: str):
    covered, bar = coverage(network(name), pool, estimator)
    assert 0.92 <= covered <= 0.98
    assert bar < (0.02 if name == "untrained" else 0.25)


def test_two_draws_narrow_the_bar_and_still_cover(pool):
    covered, bar = coverage(network("fitted"), pool, "propagated", draws=2)
    _, one = coverage(network("fitted"), pool, "propagated")
    assert 0.92 <= covered <= 0.98
    assert bar < one


def test_label_sampling_undercovers_at_an_overfitted_network_and_says_so(pool):
    model = network("overfitted")
    sampled, _ = coverage(model, pool, "sampled", images=500)
    propagated, _ = coverage(model, pool, "propagated", images=500)
    assert sampled < 0.85 < propagated
    result = fisher_trace(model, pool[0][:500], estimator="sampled")
    assert any("carry the trace: the standard error is too small" in note for note in result.notes)
    assert not fisher_trace(model, pool[0][:500], estimator="propagated").notes
    assert not fisher_trace(network("untrained"), pool[0][:500], estimator="sampled").notes


@pytest.mark.parametrize("name", ["untrained", "fitted"])
def test_the_part_due_to_the_draws_covers_the_trace_of_these_images(pool, name: str):
    """For fixed images the truth is their exact trace, and stderr_draws is the whole uncertainty."""
    model, x = network(name), pool[0][:300]
    truth = fisher_trace(model, x, estimator="exact")
    hits = 0
    for seed in range(SEEDS):
        result = fisher_trace(model, x, draws=8, seed=seed, batch_size=300)
        hits += abs(result.total - truth.total) <= 1.96 * result.total_stderr_draws
        assert (result.stderr_draws < result.stderr).all()
    assert 0.92 <= hits / SEEDS <= 0.98


def test_batch_engine_covers_from_batches(pool):
    """One value a batch: the bar comes from the spread of the batches."""
    model, (x, _) = network("untrained"), pool
    truth = fisher_trace(model, x, estimator="exact").total
    hits = 0
    for seed in range(SEEDS):
        rows = torch.randint(0, len(x), (IMAGES,), generator=torch.Generator().manual_seed(10_000 + seed))
        result = fisher_trace(model, x[rows], engine="batch", batch_size=20, seed=seed)
        hits += abs(result.total - truth) <= 1.96 * result.total_stderr
    assert 0.92 <= hits / SEEDS <= 0.98


def test_stderr_is_the_textbook_one():
    column = Column()
    column.add(torch.tensor([[1.0, 2.0, 4.0]], dtype=torch.float64), 3)
    column.add(torch.tensor([[9.0]], dtype=torch.float64), 1)
    summary = column.summary(draws=1)
    assert summary.mean == 4.0
    assert summary.stderr == pytest.approx(np.std([1, 2, 4, 9], ddof=1) / 2)
    assert np.isnan(summary.stderr_draws)


def test_batches_of_unequal_size_are_weighted_by_their_images():
    column = Column()
    column.add(torch.tensor([[2.0], [4.0]], dtype=torch.float64), 30)
    column.add(torch.tensor([[9.0], [9.0]], dtype=torch.float64), 10)
    summary = column.summary(draws=2)
    assert summary.mean == pytest.approx((30 * 3 + 10 * 9) / 40)
    assert summary.stderr_draws == pytest.approx(30 / 40 * 1.0)


def test_one_image_has_no_standard_error_over_images():
    result = fisher_trace(network("untrained"), torch.randn(1, 64), draws=2)
    assert np.isnan(result.total_stderr)
    assert result.total_stderr_draws > 0


def test_rel_se_stops_once_the_total_is_known_well_enough(pool):
    model, (x, _) = network("fitted"), pool
    result = fisher_trace(model, x, rel_se=0.15, batch_size=50)
    assert 100 <= result.images < len(x)
    assert result.total_stderr <= 0.15 * result.total
    one_batch_less = fisher_trace(model, x, max_images=result.images - 50, batch_size=50)
    assert result.images == 100 or one_batch_less.total_stderr > 0.15 * one_batch_less.total


def test_max_images_takes_the_first_images(pool):
    model, (x, _) = network("fitted"), pool
    assert fisher_trace(model, x, max_images=70).total == fisher_trace(model, x[:70]).total
    assert fisher_trace(model, iter(x.split(50)), max_images=70).images == 70


def test_an_image_set_is_measured_with_its_normalisation():
    train, _ = fisherkit.load_images("fashion-mini")
    some = train.subset(50, seed=0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(1024, 10))
    by_set = fisher_trace(model, some, estimator="empirical")
    by_tensor = fisher_trace(model, some.normalised(), some.labels, estimator="empirical")
    assert (by_set.trace == by_tensor.trace).all()
    with pytest.raises(ValueError, match="labels must be left out when images is an ImageSet"):
        fisher_trace(model, some, some.labels)
