"""Bare parameters that are broadcast over the images have a norm for each image; those that only look so do not."""

import pytest
import torch
from reference import exact_per_image, given_per_batch, given_per_image, outputs
from torch import Tensor, nn

from fisherkit.fisher import fisher_trace
from fisherkit.fisher.losses import find_loss
from fisherkit.fisher.noise import ImageNoise
from fisherkit.fisher.vectors import Estimator


class Bare(nn.Module):
    """fc(x) with two parameters of shape [1, 4] in `use`."""

    def __init__(self, use) -> None:
        super().__init__()
        self.p, self.q = nn.Parameter(torch.randn(1, 4)), nn.Parameter(torch.randn(1, 4))
        self.fc, self.use = nn.Linear(4, 3), use

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.tanh(self.use(x, self.p, self.q)))


BROADCAST = {
    "added": lambda x, p, q: x + p + q,
    "multiplied": lambda x, p, q: p * x + q,
    "expanded": lambda x, p, q: p.expand(len(x), -1) * x + q.expand_as(x),
    "twice": lambda x, p, q: p * x + p.square() + q,
    "concatenated": lambda x, p, q: torch.cat([x[:, :2] + q[:, :2], p.expand(len(x), 4)[:, 2:]], 1),
}
NOT_BROADCAST = {
    "summed": lambda x, p, q: x * p.sum() + q,
    "averaged": lambda x, p, q: x * p.mean() + q,  # the same outputs with copies, but of all images
    "product": lambda x, p, q: x * (x @ p.T) + q,
    "reshaped": lambda x, p, q: x + p.view(4) + q,
    "repeated": lambda x, p, q: x + p.repeat(len(x), 1) + q,
    "first_row": lambda x, p, q: x + p[0] + q,
}


def network(use) -> tuple[nn.Module, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Bare(use).double(), torch.randn(5, 4, dtype=torch.float64)


@pytest.mark.parametrize("use", BROADCAST.values(), ids=BROADCAST)
@pytest.mark.parametrize("engine", ["auto", "ghost"])
def test_broadcast_parameters_are_measured_for_each_image(use, engine: str):
    model, x = network(use)
    before = list(model.parameters())
    result = fisher_trace(model, x, estimator="exact", engine=engine, batch_size=2)
    assert set(result.engines.values()) == {"ghost"}
    for layer, values in exact_per_image(model, x).items():
        assert result[layer] == pytest.approx(float(values.mean()), rel=1e-10)
    assert all(one is other for one, other in zip(model.parameters(), before, strict=True))
    assert model.p.requires_grad


@pytest.mark.parametrize("use", NOT_BROADCAST.values(), ids=NOT_BROADCAST)
def test_others_are_measured_as_before(use):
    model, x = network(use)
    exact = fisher_trace(model, x, estimator="exact")
    assert exact.engines == {"(model)": "vmap", "fc": "ghost"}
    for layer, values in exact_per_image(model, x).items():
        assert exact[layer] == pytest.approx(float(values.mean()), rel=1e-10)
    drawn = fisher_trace(model, x, seed=3, batch_size=5)
    z = outputs(model, x)
    likelihood = find_loss("cross_entropy").likelihood(z.detach(), None)
    uniforms = ImageNoise(3).uniforms(0, (5, likelihood.noise))
    v = Estimator("propagated").vectors(likelihood, lambda _: uniforms, z)[0]
    assert drawn["(model)"] == pytest.approx(given_per_batch(model, x, v)["(model)"], rel=1e-10)
    assert drawn["fc"] == pytest.approx(float(given_per_image(model, x, v)["fc"].mean()), rel=1e-10)


def test_an_error_in_the_model_leaves_its_parameters():
    class Fails(Bare):
        def forward(self, x: Tensor) -> Tensor:
            if len(x) > 3:
                raise RuntimeError("too many")
            return super().forward(x)

    model = Fails(BROADCAST["added"]).double()
    own = model.p
    with pytest.raises(RuntimeError, match="too many"):
        fisher_trace(model, torch.randn(5, 4, dtype=torch.float64))
    assert model.p is own
    assert model.p.requires_grad
