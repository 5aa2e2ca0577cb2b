"""Real architectures: every layer equals the dense float64 reference, and is measured the way it is said to be."""

import pytest
import torch
from architectures import ARCHITECTURES, Architecture
from reference import count, exact_per_image, given_per_batch, given_per_image, outputs, rows
from torch import Tensor, nn

from fisherkit.fisher import fisher_trace, fisher_traces, verify
from fisherkit.fisher.losses import find_loss
from fisherkit.fisher.noise import ImageNoise
from fisherkit.fisher.vectors import Estimator

RTOL, TINY = 1e-10, 1e-14

cases = pytest.mark.parametrize("case", ARCHITECTURES, ids=lambda case: case.name)


def batch_of(inputs, labels: Tensor):
    return [{**inputs, "labels": labels}] if isinstance(inputs, dict) else [(inputs, labels)]


def check(result, reference):
    assert set(result.layers) == set(reference)
    assert not any("depend" in note or "never updated" in note for note in result.notes)
    for layer, values in reference.items():
        mean = values if isinstance(values, float) else float(values.mean())
        assert result[layer] == pytest.approx(mean, rel=RTOL, abs=TINY), (layer, result.engines[layer])


def check_engines(result, case: Architecture, rest: str):
    assert result.engines == {layer: rest if layer in case.rest else "ghost" for layer in result.layers}
    assert set(result.reasons) == set(case.rest)
    for layer, reason in case.rest.items():
        assert reason in result.reasons[layer]


@cases
def test_exact(case: Architecture):
    model, inputs, labels = case.build()
    result = fisher_trace(model, batch_of(inputs, labels), loss=case.loss, estimator="exact")
    check(result, exact_per_image(model, inputs, case.loss))
    check_engines(result, case, case.slow)


@cases
def test_propagated(case: Architecture):
    """One draw is, layer by layer, the ghost norm or the batch norm of the same vectors."""
    model, inputs, labels = case.build()
    result = fisher_trace(model, batch_of(inputs, labels), loss=case.loss, seed=3)
    z = outputs(model, inputs)
    likelihood = find_loss(case.loss).likelihood(z.detach(), labels)
    uniforms = ImageNoise(3).uniforms(0, (len(z), likelihood.noise))
    v = Estimator("propagated").vectors(likelihood, lambda _: uniforms, z)[0]
    single, joint = given_per_image(model, inputs, v), given_per_batch(model, inputs, v)
    check(result, {layer: joint[layer] if layer in case.rest else single[layer] for layer in single})
    check_engines(result, case, "batch")


@cases
def test_empirical(case: Architecture):
    """The squared gradient of the loss itself, an image at a time."""
    model, inputs, labels = case.build()
    result = fisher_trace(model, batch_of(inputs, labels), loss=case.loss, estimator="empirical")
    scores = torch.cat([score(model, inputs, labels, case.loss, i) for i in range(count(inputs))])
    check(result, given_per_image(model, inputs, scores))
    check_engines(result, case, case.slow)


@cases
def test_several_estimators_in_one_pass(case: Architecture):
    """The numbers and the engines are those of each estimator alone."""
    model, inputs, labels = case.build()
    options = dict(loss=case.loss, seed=3)
    together = fisher_traces(
        model, batch_of(inputs, labels), estimators=("exact", "propagated", "empirical"), **options
    )
    for name, result in together.items():
        alone = fisher_trace(model, batch_of(inputs, labels), estimator=name, **options)
        assert result.engines == alone.engines
        assert result.trace == pytest.approx(alone.trace, rel=RTOL)


def state(model):
    """Everything that a measurement could leave behind."""
    return {
        "values": {name: value.clone() for name, value in model.state_dict().items()},
        "flags": [module.training for module in model.modules()],
        "gradients": [(p.requires_grad, p.grad) for p in model.parameters()],
        "hooks": [
            len(module._forward_hooks) + len(module._forward_pre_hooks) + len(module._backward_hooks)
            for module in model.modules()
        ],
        "attributes": [
            {name: value if isinstance(value, int | float | str) else id(value) for name, value in vars(module).items()}
            for module in model.modules()
            if not isinstance(module, nn.RNNBase)  # it keeps its weights in a list as well, which it makes anew
        ],
        "rng": torch.get_rng_state(),
    }


@cases
def test_measuring_changes_nothing(case: Architecture):
    model, inputs, labels = case.build()
    model.train()
    before = state(model)
    for estimator in ("propagated", "exact"):
        fisher_trace(model, batch_of(inputs, labels), loss=case.loss, estimator=estimator)
    after = state(model)
    torch.testing.assert_close(after.pop("values"), before.pop("values"), rtol=0, atol=0)
    assert torch.equal(after.pop("rng"), before.pop("rng"))
    assert after == before


def score(model, inputs, labels: Tensor, loss: str, i: int) -> Tensor:
    """d(-log p(label | z)) / dz of image i, by autograd."""
    z = outputs(model, rows(inputs, i)).detach().requires_grad_()
    y = labels[i : i + 1]
    if loss == "squared_error":
        value = 0.5 * (z - y).square().sum()
    else:
        value = torch.nn.functional.cross_entropy(z.movedim(-1, 1) if "token" in loss else z, y, reduction="sum")
    return torch.autograd.grad(value, z)[0]


def test_the_table_says_which_layers_are_measured_otherwise_and_why():
    model, inputs, labels = next(case for case in ARCHITECTURES if case.name == "gpt").build()
    text = str(fisher_trace(model, [(inputs, labels)], loss="token_cross_entropy")).splitlines()
    assert "by batch: tokens: its weights are tied to another module's" in text
    assert "by batch: places: the rows of its input are not the images" in text


def test_verify_takes_complex_parameters():
    model, inputs, _ = next(case for case in ARCHITECTURES if case.name == "fourier_operator").build()
    model.weight.data = model.weight.data.to(torch.cfloat)
    checked = verify(model.float(), inputs.float(), loss="squared_error")
    assert checked.passed
    assert model.weight.dtype == torch.cfloat
