"""Every engine equals the dense float64 reference on every architecture it accepts."""

import pytest
import torch
from cases import BY_NAME, CASES, Case
from reference import exact_per_image, given_per_batch, given_per_image, outputs

from fisherkit.fisher import fisher_trace, fisher_traces
from fisherkit.fisher.batch import batch
from fisherkit.fisher.layers import trainable_layers
from fisherkit.fisher.undisturbed import undisturbed
from fisherkit.fisher.vectors import Vectors

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same'")  # a note on its speed

RTOL = 1e-10
TINY = 1e-14


def measure(model, inputs, **options):
    whole = [inputs] if isinstance(inputs, dict) else inputs
    return fisher_trace(model, whole, **options)


def check(result, reference):
    assert set(result.layers) == set(reference)
    for layer, values in reference.items():
        assert result[layer] == pytest.approx(float(values.mean()), rel=RTOL, abs=TINY), layer


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_exact_equals_dense_reference(case: Case):
    model, inputs = case.build()
    result = measure(model, inputs, loss=case.loss, estimator="exact")
    check(result, exact_per_image(model.eval(), inputs, case.loss))
    assert result.coverage == 1.0
    assert all(engine == "ghost" for engine in result.engines.values()) == case.closed


@pytest.mark.parametrize("case", [case for case in CASES if case.name != "lstm"], ids=lambda case: case.name)
def test_vmap_equals_dense_reference(case: Case):
    model, inputs = case.build()
    result = measure(model, inputs, loss=case.loss, estimator="exact", engine="vmap")
    check(result, exact_per_image(model.eval(), inputs, case.loss))
    assert set(result.engines.values()) == {"vmap"}


@pytest.mark.parametrize("case", [case for case in CASES if case.backpack], ids=lambda case: case.name)
def test_backpack_equals_dense_reference(case: Case):
    model, inputs = case.build()
    result = measure(model, inputs, loss=case.loss, estimator="exact", engine="backpack")
    check(result, exact_per_image(model.eval(), inputs, case.loss))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_batch_equals_dense_reference_for_given_vectors(case: Case):
    model, inputs = case.build()
    model.eval()
    v = torch.randn_like(outputs(model, inputs))
    with undisturbed(model):
        values = batch(model, inputs, lambda z: Vectors(1, lambda _: v), trainable_layers(model))
    for layer, value in given_per_batch(model, inputs, v).items():
        assert float(values[layer]) == pytest.approx(value, rel=RTOL, abs=TINY), layer


@pytest.mark.parametrize("name", ["residual", "transformer", "attention_bias_kv", "tied_weights"])
def test_auto_measures_the_rest_by_batch_in_the_same_pass(name: str):
    """One draw of `auto` is, layer by layer, the ghost norm or the batch norm of the same vectors."""
    model, inputs = BY_NAME[name].build()
    n = len(inputs)
    result = fisher_trace(model, inputs, batch_size=n, seed=3)
    from fisherkit.fisher.losses import find_loss
    from fisherkit.fisher.noise import ImageNoise
    from fisherkit.fisher.vectors import Estimator

    model.eval()
    z = outputs(model, inputs)
    likelihood = find_loss("cross_entropy").likelihood(z.detach(), None)
    uniforms = ImageNoise(3).uniforms(0, (n, likelihood.noise))
    v = Estimator("propagated").vectors(likelihood, lambda _: uniforms, z)[0]
    single, joint = given_per_image(model, inputs, v), given_per_batch(model, inputs, v)
    for layer, engine in result.engines.items():
        expected = joint[layer] if engine == "batch" else float(single[layer].mean())
        assert result[layer] == pytest.approx(expected, rel=RTOL), (layer, engine)


def test_empirical_equals_squared_gradient_of_the_loss():
    model, inputs = BY_NAME["residual"].build()
    labels = torch.tensor([0, 2, 1, 1, 0])
    result = fisher_trace(model, inputs, labels, estimator="empirical")
    model.eval()
    for layer in result.layers:
        parameters = list(dict(model.named_modules())[layer].parameters())
        norms = []
        for i in range(5):
            loss = torch.nn.functional.cross_entropy(model(inputs[i : i + 1]), labels[i : i + 1])
            norms.append(sum(float(g.square().sum()) for g in torch.autograd.grad(loss, parameters)))
        assert result[layer] == pytest.approx(sum(norms) / 5, rel=RTOL)


def test_layers_sum_to_the_total():
    model, inputs = BY_NAME["residual"].build()
    result = fisher_trace(model, inputs, estimator="exact")
    assert result.total == pytest.approx(result.trace.sum(), rel=1e-12)


@pytest.mark.parametrize("estimator", ["exact", "sampled", "propagated"])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 17])
def test_batch_size_changes_nothing(estimator: str, size: int):
    model, _ = BY_NAME["residual"].build()
    inputs = torch.randn(17, 2, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    whole = fisher_trace(model, inputs, estimator=estimator, batch_size=17)
    cut = fisher_trace(model, inputs, estimator=estimator, batch_size=size)
    assert cut.trace == pytest.approx(whole.trace, rel=1e-11)
    assert cut.total_stderr == pytest.approx(whole.total_stderr, rel=1e-9)


def test_channels_last_changes_nothing():
    model, inputs = BY_NAME["residual"].build()
    plain = fisher_trace(model, inputs, estimator="exact")
    model.to(memory_format=torch.channels_last)
    other = fisher_trace(model, inputs.contiguous(memory_format=torch.channels_last), estimator="exact")
    assert other.trace == pytest.approx(plain.trace, rel=1e-11)


def test_batches_may_come_as_tensors_pairs_and_dictionaries():
    model, inputs = BY_NAME["residual"].build()
    labels = torch.tensor([0, 2, 1, 1, 0])
    whole = fisher_trace(model, inputs, labels, estimator="empirical")
    pairs = fisher_trace(model, [(inputs[:2], labels[:2]), (inputs[2:], labels[2:])], estimator="empirical")
    assert pairs.trace == pytest.approx(whole.trace, rel=1e-12)
    named = [{"x": inputs[:3], "labels": labels[:3]}, {"x": inputs[3:], "labels": labels[3:]}]
    assert fisher_trace(model, iter(named), estimator="empirical").trace == pytest.approx(whole.trace, rel=1e-12)


@pytest.mark.parametrize("name", ["residual", "transformer", "lstm", "tied_weights"])
@pytest.mark.parametrize("engine", ["auto", "batch"])
def test_several_estimators_in_one_pass_are_what_they_are_alone(name: str, engine: str):
    """Whatever their order; forward passes are shared, and layers that ghost leaves go to different engines."""
    model, inputs = BY_NAME[name].build()
    labels = torch.arange(len(inputs)) % 3
    names = ("empirical", "propagated", "exact", "sampled")
    together = fisher_traces(model, inputs, labels, estimators=names, draws=2, batch_size=3, engine=engine)
    assert tuple(together) == names
    for estimator, result in together.items():
        stochastic = estimator in ("propagated", "sampled")
        alone = fisher_trace(
            model,
            inputs,
            labels,
            estimator=estimator,
            draws=2 if stochastic else 1,
            batch_size=3,
            engine=engine if stochastic else "auto",
        )
        assert result.engines == alone.engines
        assert result.trace == pytest.approx(alone.trace, rel=1e-12)
        assert result.stderr == pytest.approx(alone.stderr, rel=1e-9, nan_ok=True)
        assert (result.draws, result.entropy) == (alone.draws, pytest.approx(alone.entropy))


def test_a_shared_pass_calls_the_model_once_a_batch():
    model, inputs = BY_NAME["residual"].build()
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    fisher_traces(model, inputs, torch.zeros(5, dtype=torch.long), batch_size=5)
    shared = len(calls)
    fisher_trace(model, inputs, batch_size=5)
    assert len(calls) == 2 * shared


def test_estimators_of_one_pass_are_checked():
    model, inputs = BY_NAME["residual"].build()
    for names in ((), ("exact", "exact")):
        with pytest.raises(ValueError, match="estimators must be different names, at least one"):
            fisher_traces(model, inputs, estimators=names)
    with pytest.raises(ValueError, match="draws must be 1 for estimators"):
        fisher_traces(model, inputs, estimators=("exact",), draws=2)
