"""Error bars hold: 95 % intervals cover the truth at their nominal rate, on real images, or the result says not.

The truth is the mean over a pool of 1,500 real images, from which samples are drawn. The samples are made of values
that one call of `fisher_trace` with many draws gave its tally (`measured`).
"""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fisherkit
from fisherkit.fisher import fisher_trace
from fisherkit.fisher.intervals import hall_interval, normal_is_trusted
from fisherkit.fisher.tally import Column, Summary, Tally

POOL = 1500
TRIALS = 1000
LAYERS = ("0", "2")


@cache
def pool() -> tuple[Tensor, Tensor]:
    train, _ = fisherkit.load_images("fashion-mini")
    return nn.functional.avg_pool2d(train.normalised()[:POOL], 4).flatten(1), train.labels[:POOL]


def network(name: str) -> nn.Module:
    """untrained, half (train loss 0.5), fitted (0.03) or overfitted (0.002): see data/make_networks.py."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    if name != "untrained":
        stored = np.load(Path(__file__).parent / "data" / "networks.npz")
        model.load_state_dict({key: torch.from_numpy(stored[f"{name}.{key}"]) for key in model.state_dict()})
    return model


def given_to_tally(*arguments, **options) -> list[dict[str, Tensor]]:
    """The values of every batch of one `fisher_trace`: {layer: [draws, images]}."""
    given, add = [], Tally.add

    def keep(tally: Tally, values, images, **where):
        given.append(values)
        add(tally, values, images, **where)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tally, "add", keep)
        assert fisher_trace(*arguments, **options).layers == LAYERS
    return given


@cache
def measured(name: str, estimator: str) -> dict[str, Tensor]:
    """Of the whole pool, 100 draws for those that draw."""
    draws = 100 if estimator in ("propagated", "sampled") else 1
    (values,) = given_to_tally(network(name), *pool(), estimator=estimator, draws=draws, batch_size=POOL)
    assert values["0"].shape == (draws, POOL)
    return values


def total(name: str, estimator: str) -> Tensor:
    return sum(measured(name, estimator).values())


def truth(name: str, estimator: str) -> float:
    return float(total(name, "empirical" if estimator == "empirical" else "exact").mean())


def sample(values: Tensor, images: int, rng: np.random.Generator, *, draws: int = 1) -> Tensor:
    """Images with replacement, each with draws of its own: [draws, images]."""
    rows = torch.from_numpy(rng.integers(0, values.shape[1], images))
    kept = torch.from_numpy(rng.integers(0, len(values), (draws, images)))
    return values[kept, rows]


def summaries(name: str, estimator: str, images: int, *, draws: int = 1) -> list[Summary]:
    """Of the total, over `TRIALS` samples."""
    values, rng = total(name, estimator), np.random.default_rng(0)
    made = []
    for _ in range(TRIALS):
        column = Column()
        column.add(sample(values, images, rng, draws=draws), images)
        made.append(column.summary(draws))
    return made


def normal(found: list[Summary], true: float) -> float:
    """How often mean +- 1.96 stderr holds the truth."""
    return float(np.mean([abs(s.mean - true) <= 1.96 * s.stderr for s in found]))


def hall(found: list[Summary], true: float) -> float:
    """How often Hall's interval does."""
    limits = hall_interval(*np.array([(s.mean, s.stderr, s.skewness, s.groups) for s in found]).T)
    return float(((limits[:, 0] <= true) & (true <= limits[:, 1])).mean())


@pytest.mark.parametrize("estimator", ["exact", "empirical", "propagated"])
@pytest.mark.parametrize("name", ["untrained", "half"])
def test_intervals_cover_at_their_nominal_rate(name: str, estimator: str):
    for images in (100, 1000):
        found, true = summaries(name, estimator, images), truth(name, estimator)
        assert 0.925 <= normal(found, true) <= 0.97
        assert 0.93 <= hall(found, true) <= 0.97


@pytest.mark.parametrize("estimator", ["exact", "propagated"])
@pytest.mark.parametrize("name", ["fitted", "overfitted"])
def test_on_a_thousand_images_of_a_fitted_network_they_cover_too(name: str, estimator: str):
    found, true = summaries(name, estimator, 1000), truth(name, estimator)
    assert 0.925 <= normal(found, true) <= 0.97
    assert 0.93 <= hall(found, true) <= 0.97
    assert np.mean([s.stderr for s in found]) < 0.12 * true


@pytest.mark.parametrize(
    ("name", "estimator", "images", "at_least"),
    [
        ("fitted", "exact", 50, 0.92),
        ("fitted", "propagated", 100, 0.91),
        ("overfitted", "propagated", 100, 0.90),
        ("fitted", "empirical", 500, 0.93),
    ],
)
def test_where_the_normal_interval_is_too_short_it_says_so_and_halls_is_not(
    name: str, estimator: str, images: int, at_least: float
):
    found, true = summaries(name, estimator, images), truth(name, estimator)
    assert normal(found, true) < 0.905
    assert hall(found, true) >= at_least
    warned = np.mean([not normal_is_trusted(s.skewness, s.groups) for s in found])
    assert warned > 0.9


@pytest.mark.parametrize("name", ["untrained", "half"])
def test_where_the_normal_interval_holds_there_is_no_warning(name: str):
    found = summaries(name, "exact", 200)
    assert np.mean([normal_is_trusted(s.skewness, s.groups) for s in found]) > 0.99


def test_two_draws_narrow_the_bar_and_still_cover():
    one, two = summaries("fitted", "propagated", 1000), summaries("fitted", "propagated", 1000, draws=2)
    assert 0.925 <= normal(two, truth("fitted", "propagated")) <= 0.97
    assert np.mean([s.stderr for s in two]) < np.mean([s.stderr for s in one])


def test_label_sampling_undercovers_at_an_overfitted_network_and_says_so():
    true = truth("overfitted", "sampled")
    sampled, propagated = summaries("overfitted", "sampled", 500), summaries("overfitted", "propagated", 500)
    assert normal(sampled, true) < 0.85 < normal(propagated, true)
    assert hall(sampled, true) < 0.9 < hall(propagated, true)
    model, (x, _) = network("overfitted"), pool()
    result = fisher_trace(model, x[:500], estimator="sampled")
    assert any("carry the trace: the standard error is too small" in note for note in result.notes)
    (note,) = fisher_trace(model, x[:500], estimator="propagated").notes
    assert "use more images (--probe-images), or result.interval()" in note
    assert not fisher_trace(network("untrained"), x[:500], estimator="sampled").notes


@pytest.mark.parametrize("rel_se", [0.2, 0.1])
def test_intervals_after_stopping(rel_se: float):
    """A mean stopped by its own standard error is low where that is: the normal interval covers less, Hall's holds."""
    found = [_stopped(rel_se, np.random.default_rng(seed)) for seed in range(300)]
    true = truth("fitted", "exact")
    assert all(s.stderr <= rel_se * s.mean for s in found)
    assert 0.88 <= normal(found, true) <= 0.97
    assert 0.915 <= hall(found, true) <= 0.98


def _stopped(rel_se: float, rng: np.random.Generator) -> Summary:
    tally, values = Tally(LAYERS, joint=False), measured("fitted", "exact")
    while tally.images < 100 or not tally.reached(rel_se, 1, layers_above=0.01):
        rows = torch.from_numpy(rng.integers(0, POOL, 50))
        tally.add({layer: value[:, rows] for layer, value in values.items()}, 50)
    return tally.total.summary(1)


# ---- the part due to the draws


@pytest.mark.parametrize("name", ["untrained", "fitted"])
def test_the_part_due_to_the_draws_covers_the_trace_of_these_images(name: str):
    """For fixed images the truth is their exact trace, and stderr_draws is the whole uncertainty: 100 times 8 draws.

    Draws that were shared between images, or not new each time, would show here.
    """
    model, x = network(name), pool()[0][:300]
    true = float(total(name, "exact")[:, :300].mean())
    (values,) = given_to_tally(model, x, draws=800, batch_size=300)
    hits = 0
    for eight in sum(values.values()).split(8):
        column = Column()
        column.add(eight, 300)
        found = column.summary(8)
        assert found.stderr_draws < found.stderr
        hits += abs(found.mean - true) <= 1.96 * found.stderr_draws
    assert 89 <= hits <= 99


def test_seeds_draw_independently():
    values = [given_to_tally(network("half"), pool()[0], seed=seed, batch_size=POOL) for seed in (0, 1)]
    expected = measured("half", "exact")["0"][0]
    noise = torch.stack([value["0"][0] - expected for (value,) in values])
    assert abs(float(torch.corrcoef(noise)[0, 1])) < 4 / POOL**0.5


# ---- finite populations


@pytest.mark.parametrize(("estimator", "draws"), [("exact", 1), ("propagated", 2), ("propagated", 4)])
@pytest.mark.parametrize("name", ["half", "fitted"])
def test_a_sample_of_a_finite_population_covers_its_mean(name: str, estimator: str, draws: int):
    """300 of 500 images without replacement; and all of them, of which the draws alone are uncertain."""
    values, rng = total(name, estimator)[:, :500], np.random.default_rng(0)
    true = float(total(name, "exact")[:, :500].mean())
    for images in (300, 500):
        found = []
        for _ in range(TRIALS):
            rows = torch.from_numpy(rng.permutation(500)[:images])
            column = Column()
            column.add(values[torch.from_numpy(rng.integers(0, len(values), (draws, images))), rows], images)
            found.append(column.summary(draws, population=500))
        if draws == 1 and images == 500:
            assert [s.stderr for s in found] == [0.0] * TRIALS
        else:  # where two draws alone count, a few images carry them: 92 % was measured at the fitted network
            assert (0.93 if images == 300 or name == "half" else 0.9) <= hall(found, true) <= 0.97


def test_the_population_reaches_the_result():
    model, x = network("half"), pool()[0][:300]
    plain = fisher_trace(model, x, draws=4, batch_size=100)
    some = fisher_trace(model, x, draws=4, batch_size=100, population=500)
    whole = fisher_trace(model, x, draws=4, batch_size=100, population=300)
    assert whole.stderr == pytest.approx(plain.stderr_draws)
    assert some.stderr**2 == pytest.approx(0.4 * plain.stderr**2 + 0.6 * plain.stderr_draws**2)
    assert some.total_stderr**2 == pytest.approx(0.4 * plain.total_stderr**2 + 0.6 * plain.total_stderr_draws**2)
    assert (plain.population, some.population) == (None, 500)
    assert "300 of 500 images" in str(some)
    exact = fisher_trace(network("fitted"), x[:50], estimator="exact", population=50)
    assert exact.total_interval().tolist() == [exact.total, exact.total]
    assert not exact.notes


def test_populations_that_cannot_be_are_refused_before_anything_is_measured():
    model, x = network("half"), pool()[0][:30]
    with pytest.raises(ValueError, match="draws must be at least 2 with population=50"):
        fisher_trace(model, x, population=50)
    with pytest.raises(ValueError, match="population must be at least the number of images measured, 30; got 20"):
        fisher_trace(model, x, estimator="exact", population=20)
    with pytest.raises(ValueError, match="population must be at least the number of images measured"):
        fisher_trace(model, iter(x.split(5)), estimator="exact", population=20)
    with pytest.raises(ValueError, match="projections must be None with population=50"):
        fisher_trace(model, x, estimator="exact", population=50, projections=4)
    normalised = nn.Sequential(nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, 10))
    with pytest.raises(ValueError, match=r"population must be None where the images of a batch are one joint model"):
        fisher_trace(normalised, x, draws=2, batchnorm="train", population=50)


# ---- batches


def test_batch_engine_covers_from_batches():
    """One value a batch: the bar comes from the spread of 25 batches of 20 images; 40 times."""
    rows = torch.randint(0, POOL, (1000, 20), generator=torch.Generator().manual_seed(0))
    given = given_to_tally(network("untrained"), iter(pool()[0][rows]), engine="batch")
    found = []
    for start in range(0, 1000, 25):
        column = Column()
        for values in given[start : start + 25]:
            column.add(sum(values.values()), 20)
        found.append(column.summary(1))
    assert found[0].groups == 25
    assert 0.87 <= hall(found, truth("untrained", "propagated")) <= 0.995


def test_intervals_of_layers_measured_by_images_and_by_batches():
    """Each layer's interval rests on its own number of values."""

    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale, self.out = nn.Parameter(torch.ones(64)), nn.Linear(64, 10)

        def forward(self, x):
            return self.out(x * self.scale)

    result = fisher_trace(Mixed(), pool()[0][:120], batch_size=10)
    assert sorted(result.engines.values()) == ["batch", "ghost"]
    assert (result.images, result.groups) == (120, 12)
    for k, layer in enumerate(result.layers):
        count = 12 if result.engines[layer] == "batch" else 120
        expected = hall_interval(result.trace[k], result.stderr[k], result.skewness[k], count, level=0.8)
        assert (result.interval(0.8)[k] == expected).all()
    expected = hall_interval(result.total, result.total_stderr, result.total_skewness, 12)
    assert (result.total_interval() == expected).all()


def test_one_image_has_no_standard_error_over_images():
    result = fisher_trace(network("untrained"), torch.randn(1, 64), draws=2)
    assert np.isnan(result.total_stderr)
    assert result.total_stderr_draws > 0


def test_rel_se_stops_once_the_total_is_known_well_enough():
    model, (x, _) = network("fitted"), pool()
    result = fisher_trace(model, x, rel_se=0.15, batch_size=50)
    assert 100 <= result.images < len(x)
    assert result.total_stderr <= 0.15 * result.total
    one_batch_less = fisher_trace(model, x, max_images=result.images - 50, batch_size=50)
    assert result.images == 100 or one_batch_less.total_stderr > 0.15 * one_batch_less.total


def test_max_images_takes_the_first_images():
    model, (x, _) = network("fitted"), pool()
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
