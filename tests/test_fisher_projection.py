"""Projected norms: unbiased, independent between images, layers and vectors, and inside the standard errors."""

import numpy as np
import pytest
import torch
from torch import nn

from fisherkit.fisher import fisher_trace
from fisherkit.fisher.forms import projection
from fisherkit.fisher.forms.convolution import convolution
from fisherkit.fisher.forms.projection import projected
from fisherkit.fisher.layers import trainable_layers


@pytest.fixture(autouse=True)
def _small_layers_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projection, "WORK", 1)


def network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        convolution = nn.Conv2d(2, 16, 3, padding=1)
        return nn.Sequential(convolution, nn.Tanh(), nn.Conv2d(16, 3, 3), nn.Flatten(), nn.Linear(3 * 100, 4)).double()


def test_projecting_on_every_sign_vector_gives_the_norm():
    """The mean over all 2^O sign vectors is exact: no tolerance for chance."""
    module = nn.Conv2d(2, 4, 3, padding=1, stride=2).double()
    a, g = torch.randn(3, 2, 12, 12, dtype=torch.float64), torch.randn(3, 4, 6, 6, dtype=torch.float64)
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 4)
    (layer,) = trainable_layers(module)
    means = []
    for one in signs:
        norms = projected(layer, a, lambda outputs, r=one: r.expand(3, 1, outputs), 1)
        assert norms is not None
        means.append(norms(g))
    torch.testing.assert_close(torch.stack(means).mean(0), convolution(layer, a)(g), rtol=1e-10, atol=0)


def test_a_linear_layer_over_positions_is_projected_too():
    module = nn.Linear(6, 4).double()
    a, g = torch.randn(3, 8, 6, dtype=torch.float64), torch.randn(3, 8, 4, dtype=torch.float64)
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 4)
    (layer,) = trainable_layers(module)
    norms = [projected(layer, a, lambda outputs, r=one: r.expand(3, 1, outputs), 1)(g) for one in signs]
    expected = (g.transpose(1, 2) @ a).square().sum((1, 2)) + g.sum(1).square().sum(1)
    torch.testing.assert_close(torch.stack(norms).mean(0), expected, rtol=1e-10, atol=0)


def test_what_was_projected_is_said():
    images = torch.randn(20, 2, 12, 12, dtype=torch.float64)
    result = fisher_trace(network(), images, projections=2)
    assert result.engines == {"0": "projected", "2": "ghost", "4": "ghost"}
    plain = fisher_trace(network(), images)
    assert result["4"] == plain["4"]
    assert result["0"] != plain["0"]


def test_cutting_into_batches_changes_nothing():
    images = torch.randn(20, 2, 12, 12, dtype=torch.float64)
    whole = fisher_trace(network(), images, projections=2, batch_size=20)
    cut = fisher_trace(network(), images, projections=2, batch_size=7)
    assert cut.trace == pytest.approx(whole.trace, rel=1e-12)


@pytest.mark.parametrize("draws", [1, 2])
def test_standard_errors_cover(draws: int):
    """Signs shared between images would leave 95 % intervals that cover far less (peers.md: 14 % for 4 %)."""
    model = network()
    pool = torch.randn(400, 2, 12, 12, dtype=torch.float64) * torch.linspace(0.5, 2, 400)[:, None, None, None]
    truth = fisher_trace(model, pool, estimator="exact")
    hits, bars = np.zeros(len(truth.layers)), []
    for seed in range(100):
        rows = torch.randint(0, 400, (60,), generator=torch.Generator().manual_seed(seed))
        result = fisher_trace(model, pool[rows], projections=2, draws=draws, seed=seed, batch_size=60)
        hits += np.abs(result.trace - truth.trace) <= 1.96 * result.stderr
        bars.append(result.stderr / truth.trace)
    assert (hits >= 88).all()
    assert (hits <= 99).all()
    assert np.mean(bars) < 0.25


def test_wrong_number_of_projections():
    with pytest.raises(ValueError, match="projections must be at least 1"):
        fisher_trace(network(), torch.randn(2, 2, 12, 12, dtype=torch.float64), projections=0)


class Branching(nn.Module):
    """Calls its convolution twice on bright images."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.out = nn.Conv2d(2, 16, 3, padding=1), nn.Linear(16, 3)

    def forward(self, x):
        once = self.convolution(x)
        return self.out((once + self.convolution(x) if x.mean() > 1 else once).mean((2, 3)))


def test_a_layer_that_leaves_ghost_is_no_longer_said_to_be_projected():
    images = torch.randn(8, 2, 12, 12)
    result = fisher_trace(Branching(), [images, images + 5], projections=4)
    assert result.engines["convolution"] == "batch"
    assert "called twice" in result.reasons["convolution"]
