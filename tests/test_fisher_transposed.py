"""The three forms of a transposed convolution's norm are equal; the cost model picks among them."""

import pytest
import torch
from torch import nn

from fisherkit.fisher.forms import transposed as forms
from fisherkit.fisher.forms.convolution import patch_gram
from fisherkit.fisher.layers import Layer

LAYERS = {
    "plain": (nn.ConvTranspose2d(4, 6, 3, padding=1), (4, 5, 6), None),
    "strided": (nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1), (4, 3, 4), None),
    "output_size": (nn.ConvTranspose2d(4, 6, 3, stride=3), (4, 3, 4), [10, 14]),
    "dilated": (nn.ConvTranspose2d(4, 6, 3, dilation=2, padding=(2, 1)), (4, 4, 3), None),
    "grouped": (nn.ConvTranspose2d(4, 6, (3, 2), groups=2, stride=(1, 2)), (4, 3, 4), None),
    "depthwise": (nn.ConvTranspose2d(4, 4, 3, groups=4, padding=1), (4, 5, 5), None),
    "one_dimension": (nn.ConvTranspose1d(4, 6, 4, padding=1, stride=2), (4, 8), None),
    "three_dimensions": (nn.ConvTranspose3d(2, 3, 2, padding=1, stride=(1, 2, 1)), (2, 3, 4, 3), None),
    "kernel_larger_than_input": (nn.ConvTranspose2d(4, 6, 5, padding=3), (4, 3, 4), None),
}


@pytest.mark.parametrize(("module", "shape", "size"), LAYERS.values(), ids=LAYERS)
def test_all_forms_equal_the_gradient(module: nn.Module, shape: tuple[int, ...], size: list[int] | None):
    module = module.double()
    a = torch.randn(3, *shape, dtype=torch.float64)
    g = torch.randn_like(module(a, output_size=size))
    expected = []
    for i in range(3):
        (grad,) = torch.autograd.grad(module(a[i : i + 1], output_size=size), module.weight, g[i : i + 1])
        expected.append(grad.square().sum())
    expected = torch.stack(expected)
    with torch.no_grad():
        rows = forms.by_group(a, module.groups)
        gram = patch_gram(module, g, tuple(a.shape[2:])) * (rows.transpose(2, 3) @ rows)
        torch.testing.assert_close(forms.direct(module, a, g), expected, rtol=1e-11, atol=0)
        torch.testing.assert_close(forms.library(module, a, g), expected, rtol=1e-11, atol=0)
        torch.testing.assert_close(gram.flatten(1).sum(1), expected, rtol=1e-11, atol=0)


def chosen(inputs: int, outputs: int, size: int, device: str = "cpu") -> str:
    module = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1)
    a = torch.empty(1, inputs, size, size, device=device)
    return forms.cheapest(module, a, torch.empty(1, outputs, 2 * size, 2 * size, device=device))


def test_the_cost_model_takes_the_gram_for_small_maps_and_not_for_large_ones():
    assert chosen(512, 256, 4) == chosen(256, 128, 8) == "gram"
    assert chosen(128, 64, 16) == chosen(64, 3, 32) == "library"
    assert chosen(128, 64, 16, "meta") == "direct"


@pytest.mark.parametrize("form", ["gram", "direct", "library"])
def test_the_chosen_form_is_used_for_every_vector(form: str, monkeypatch: pytest.MonkeyPatch):
    module, shape, _ = LAYERS["grouped"]
    module = module.double()
    a = torch.randn(3, *shape, dtype=torch.float64)
    monkeypatch.setattr(forms, "cheapest", lambda *_: form)
    norms = forms.transposed(Layer("up", module, dict(module.named_parameters())), a)
    for _ in range(2):
        g = torch.randn_like(module(a))
        for i in range(3):
            grads = torch.autograd.grad(module(a[i : i + 1]), list(module.parameters()), g[i : i + 1])
            expected = sum(grad.square().sum() for grad in grads)
            torch.testing.assert_close(norms(g)[i].detach(), expected, rtol=1e-11, atol=0)
