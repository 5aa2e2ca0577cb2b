"""Models of transformers, made from a configuration: dictionary batches, `.logits`, their own kinds of layers."""

import sys

import pytest
import torch
from reference import exact_per_image
from torch import Tensor

from fisherkit.fisher import fisher_trace, fisher_traces

N = 4


@pytest.fixture(scope="module")
def hf():
    """transformers; without torchvision where that does not fit this torch, which transformers would stumble on."""
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError):
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        sys.modules["torchvision"] = None  # as if it were not installed
    return pytest.importorskip("transformers")


def bert(hf, attention: str):
    sizes = dict(hidden_size=4, num_hidden_layers=1, num_attention_heads=2, intermediate_size=6)
    config = hf.BertConfig(vocab_size=10, max_position_embeddings=8, num_labels=3, **sizes)
    config._attn_implementation = attention
    mask = torch.ones(N, 5, dtype=torch.long)
    mask[1, 3:] = 0
    inputs = {"input_ids": torch.randint(1, 10, (N, 5)), "attention_mask": mask}
    return hf.BertForSequenceClassification(config), inputs, torch.randint(0, 3, (N,)), "cross_entropy"


def gpt2(hf, attention: str):
    config = hf.GPT2Config(vocab_size=7, n_positions=6, n_embd=4, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
    config._attn_implementation = attention
    ids = torch.randint(1, 7, (N, 4))
    return hf.GPT2LMHeadModel(config), {"input_ids": ids}, ids, "next_token_cross_entropy"


def vit(hf, attention: str):
    sizes = dict(hidden_size=4, num_hidden_layers=1, num_attention_heads=2, intermediate_size=6)
    config = hf.ViTConfig(image_size=4, patch_size=2, num_channels=2, num_labels=3, **sizes)
    config._attn_implementation = attention
    inputs = {"pixel_values": torch.randn(N, 2, 4, 4, dtype=torch.float64)}
    return hf.ViTForImageClassification(config), inputs, torch.randint(0, 3, (N,)), "cross_entropy"


MODELS = {
    "bert": (bert, {"bert.embeddings.position_embeddings"}, "loop"),
    "gpt2": (gpt2, {"transformer.wte", "transformer.wpe"}, "vmap"),
    "vit": (vit, set(), "vmap"),
}
TOLERANCES = {"sdpa": 1e-10, "eager": 1e-6}  # the eager attention takes its softmax in float32


@pytest.mark.parametrize("attention", TOLERANCES)
@pytest.mark.parametrize(("make", "rest", "slow"), MODELS.values(), ids=MODELS)
def test_models_from_their_configuration(hf, make, rest: set[str], slow: str, attention: str):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, inputs, labels, loss = make(hf, attention)
    model.double().eval()
    batch = {**inputs, "labels": labels}
    results = fisher_traces(model, [batch], estimators=("exact", "propagated", "empirical"), loss=loss)
    exact = results["exact"]
    reference = exact_per_image(model, inputs, loss)
    for layer, values in reference.items():
        assert exact[layer] == pytest.approx(float(values.mean()), rel=TOLERANCES[attention], abs=1e-14), layer
    empirical = squared_gradients(model, inputs, labels, loss)
    for layer, value in empirical.items():
        assert results["empirical"][layer] == pytest.approx(value, rel=TOLERANCES[attention], abs=1e-14), layer
    for name, result in results.items():
        expected = "batch" if name == "propagated" else slow
        moved = {layer for layer, engine in result.engines.items() if engine != "ghost"}
        assert moved == rest == set(result.reasons), result.reasons
        assert {result.engines[layer] for layer in rest} <= {expected}


def squared_gradients(model, inputs, labels: Tensor, loss: str) -> dict[str, float]:
    """Of the loss, an image at a time; labels one position on for the language model."""
    modules = dict(model.named_modules())
    totals = {layer: 0.0 for layer in exact_per_image(model, {k: v[:1] for k, v in inputs.items()}, loss)}
    for i in range(N):
        z, y = model(**{k: v[i : i + 1] for k, v in inputs.items()}).logits, labels[i : i + 1]
        if loss == "next_token_cross_entropy":
            z, y = z[0, :-1], y[0, 1:]
        model.zero_grad()
        torch.nn.functional.cross_entropy(z, y, reduction="sum").backward()
        for layer in totals:
            grads = [p.grad for p in modules[layer].parameters(recurse=False)]
            totals[layer] += sum(float(g.square().sum()) for g in grads if g is not None) / N
    return totals


def test_one_dictionary_is_one_batch(hf):
    model, inputs, labels, loss = bert(hf, "sdpa")
    whole = fisher_trace(model, {**inputs, "labels": labels}, loss=loss, estimator="exact")
    assert whole.images == N
