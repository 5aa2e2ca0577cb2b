"""Estimators are unbiased: every outcome of the random numbers is enumerated and weighted, so no tolerance is owed."""

from itertools import product

import pytest
import torch
from cases import BY_NAME
from reference import exact_per_image, given_per_batch, given_per_image, hessian, outputs, sign_vectors

from fisherkit.fisher.batch import batch
from fisherkit.fisher.ghost import ghost
from fisherkit.fisher.layers import trainable_layers
from fisherkit.fisher.losses import LOSSES, Loss, find_loss
from fisherkit.fisher.noise import ImageNoise
from fisherkit.fisher.undisturbed import undisturbed
from fisherkit.fisher.vectors import Estimator, Vectors

LOGITS = {
    "spread": [0.3, -1.2, 0.8, 0.1],
    "sure": [30.0, 0.0, -3.0, 2.0],
    "very_sure": [300.0, 0.0, -300.0, 1.0],
    "two_left": [800.0, 800.0, -800.0, -800.0],
}


def uniforms_of(signs):
    """Uniform numbers that stand for these signs."""
    return 0.5 + 0.25 * signs


ONE_ROW = [loss for loss in LOSSES if "token" not in loss.name and "pixel" not in loss.name]


def columns(loss: Loss, z):
    likelihood = loss.likelihood(z, None)
    return torch.stack([likelihood.column(k)[0] for k in range(likelihood.columns)], 1)


@pytest.mark.parametrize("loss", ONE_ROW, ids=lambda loss: loss.name)
@pytest.mark.parametrize("logits", LOGITS.values(), ids=LOGITS)
def test_columns_are_a_square_root_of_the_hessian(loss: Loss, logits):
    z = torch.tensor([logits], dtype=torch.float64)
    s = columns(loss, z)
    assert torch.isfinite(s).all()
    torch.testing.assert_close(s @ s.T, hessian(z[0], loss.name), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("loss", ONE_ROW, ids=lambda loss: loss.name)
@pytest.mark.parametrize("logits", LOGITS.values(), ids=LOGITS)
def test_mean_over_all_signs_is_the_hessian(loss: Loss, logits):
    z = torch.tensor([logits], dtype=torch.float64)
    likelihood = loss.likelihood(z, None)
    v = torch.stack([likelihood.propagated(uniforms_of(signs)[None])[0] for signs in sign_vectors(4)])
    torch.testing.assert_close(v.T @ v / len(v), hessian(z[0], loss.name), rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(v.mean(0), torch.zeros(4, dtype=torch.float64), rtol=0, atol=1e-15)


@pytest.mark.parametrize("gap", [1.0, 20.0, 60.0, 200.0])
def test_a_sure_network_loses_nothing_to_cancellation(gap: float):
    """For p = (1 - q, q) the Hessian is q (1 - q) [[1, -1], [-1, 1]]; q goes down to 1e-87."""
    z = torch.tensor([[gap, 0.0]], dtype=torch.float64)
    q = torch.sigmoid(torch.tensor(-gap, dtype=torch.float64))
    likelihood = find_loss("cross_entropy").likelihood(z, torch.tensor([0]))
    root = (q * torch.sigmoid(torch.tensor(gap, dtype=torch.float64))).sqrt()
    for v in (likelihood.column(0), likelihood.propagated(torch.full_like(z, 0.75))):
        assert float(v[0, 0]) == pytest.approx(-float(v[0, 1]), rel=1e-12)
    assert float(likelihood.column(0)[0, 0]) == pytest.approx(float(root), rel=1e-12)
    assert float(likelihood.score()[0, 0]) == pytest.approx(-float(q), rel=1e-12)
    assert float(likelihood.entropy()) >= 0


@pytest.mark.parametrize("case", ["residual", "transformer", "embedding"])
@pytest.mark.parametrize("name", ["propagated", "sampled"])
def test_expectation_over_all_outcomes_is_exact(case: str, name: str):
    model, inputs = BY_NAME[case].build()
    model.eval()
    z = outputs(model, inputs).detach()
    loss = find_loss("cross_entropy")
    expected = dict.fromkeys(exact_per_image(model, inputs), 0.0)
    for weight, v in outcomes(name, loss, z):
        for layer, norms in given_per_image(model, inputs, v).items():
            expected[layer] = expected[layer] + weight * norms
    for layer, norms in exact_per_image(model, inputs).items():
        torch.testing.assert_close(expected[layer], norms, rtol=1e-10, atol=1e-15)


def outcomes(name: str, loss: Loss, z):
    """(probability [images], v) of every outcome, the same index for all images."""
    classes = z.shape[1]
    if name == "sampled":
        for y in range(classes):
            labels = torch.full((len(z),), y)
            yield torch.softmax(z, 1)[:, y], loss.likelihood(z, labels).score()
    else:
        likelihood = loss.likelihood(z, None)
        for signs in sign_vectors(classes):
            uniforms = uniforms_of(signs).expand(len(z), -1)
            v = Estimator("propagated").vectors(likelihood, lambda _, given=uniforms: given, z)[0]
            yield torch.full((len(z),), 0.5**classes, dtype=torch.float64), v


@pytest.mark.parametrize("case", ["mlp", "bare_parameters", "residual"])
@pytest.mark.parametrize("name", ["propagated", "sampled"])
def test_expectation_of_the_batch_engine_over_all_tuples(case: str, name: str):
    """E || sum_i J_i^T v_i ||^2 / B over every tuple of outcomes of B = 2 images is the mean exact trace."""
    model, inputs = BY_NAME[case].build()
    model, inputs = model.eval(), inputs[:2]
    z = outputs(model, inputs).detach()
    loss, layers = find_loss("cross_entropy"), trainable_layers(model)
    expected = dict.fromkeys((layer.name for layer in layers), 0.0)
    first = list(outcomes(name, loss, z[:1]))
    second = list(outcomes(name, loss, z[1:]))
    with undisturbed(model):
        for (weight1, v1), (weight2, v2) in product(first, second):
            v = torch.cat([v1, v2])
            values = batch(model, inputs, lambda _, v=v: Vectors(1, lambda _: v), layers)
            for layer in expected:
                expected[layer] += float(weight1 * weight2 * values[layer][0])
    for layer, norms in exact_per_image(model, inputs).items():
        assert expected[layer] == pytest.approx(float(norms.mean()), rel=1e-10)


def test_the_batch_engine_is_wrong_for_data_labels():
    """Why it is refused: scores at given labels do not have mean zero (papers.md: 22.9 -> 74.9 for 12.9)."""
    model, inputs = BY_NAME["mlp"].build()
    z = outputs(model, inputs).detach()
    v = find_loss("cross_entropy").likelihood(z, torch.zeros(len(z), dtype=torch.long)).score()
    joint = given_per_batch(model, inputs, v)
    single = {layer: float(norms.mean()) for layer, norms in given_per_image(model, inputs, v).items()}
    assert all(joint[layer] > 1.5 * single[layer] for layer in joint)


def test_labels_are_drawn_by_inverting_the_cumulative_distribution():
    z = torch.tensor([[0.0, 1.0, -2.0]], dtype=torch.float64)
    loss, p = find_loss("cross_entropy"), torch.softmax(torch.tensor([0.0, 1.0, -2.0], dtype=torch.float64), 0)
    edges = [0.0, float(p[0]), float(p[0] + p[1]), 1.0]
    for y in range(3):
        for u in (edges[y], (edges[y] + edges[y + 1]) / 2, edges[y + 1] - 1e-12):
            likelihood = loss.likelihood(z, torch.tensor([y]))
            v = likelihood.sampled(torch.full((1, likelihood.noise), u, dtype=torch.float64))
            torch.testing.assert_close(v, likelihood.score(), rtol=0, atol=0)


def test_random_numbers_belong_to_the_position_of_an_image():
    whole = ImageNoise(1).uniforms(0, (40, 3, 10))
    noise = ImageNoise(1)
    parts = [noise.uniforms(start, (count, 3, 10)) for start, count in ((20, 20), (0, 1), (1, 2), (3, 17))]
    assert torch.equal(torch.cat([*parts[1:], parts[0]]), whole)
    assert torch.equal(noise.uniforms(5, (1, 7)).flatten(), whole[5].flatten()[:7])
    assert len(whole.unique()) == whole.numel()
    assert abs(float(whole.mean()) - 0.5) < 4 * 12**-0.5 / whole.numel() ** 0.5


def test_seeds_and_streams_give_other_numbers():
    numbers = [ImageNoise(seed, stream).uniforms(0, (5, 4)) for seed, stream in ((0, 0), (1, 0), (0, 1), (-1, 0))]
    assert len(torch.stack(numbers).unique()) == 80


def test_ghost_per_image_gradients_match_for_each_image_not_only_on_average():
    model, inputs = BY_NAME["residual_in_place"].build()
    model.eval()
    v = torch.randn_like(outputs(model, inputs))
    with undisturbed(model):
        values = ghost(model, inputs, lambda _: Vectors(1, lambda _: v), trainable_layers(model))
    reference, _ = BY_NAME["residual"].build()
    reference.load_state_dict(model.state_dict())
    for layer, norms in given_per_image(reference.eval(), inputs, v).items():
        torch.testing.assert_close(values[layer][0], norms, rtol=1e-10, atol=1e-15)
