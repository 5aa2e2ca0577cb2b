"""The three forms of a convolution's norm are equal; the cost model picks among them."""

import pytest
import torch
from torch import nn

from fisherkit.fisher.forms import convolution as forms

LAYERS = {
    "plain": (nn.Conv2d(4, 6, 3, padding=1), (4, 5, 6)),
    "strided": (nn.Conv2d(4, 6, 3, stride=2, padding=1), (4, 7, 6)),
    "dilated": (nn.Conv2d(4, 6, 3, dilation=2, padding=(2, 1)), (4, 6, 7)),
    "grouped": (nn.Conv2d(4, 6, (3, 2), groups=2, stride=(1, 2)), (4, 5, 6)),
    "depthwise": (nn.Conv2d(4, 4, 3, groups=4, padding=1), (4, 5, 5)),
    "same": (nn.Conv2d(4, 6, 3, padding="same", dilation=2), (4, 5, 6)),
    "reflect": (nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), (4, 5, 6)),
    "one_dimension": (nn.Conv1d(4, 6, 3, padding=1, stride=2), (4, 8)),
    "three_dimensions": (nn.Conv3d(2, 3, 2, padding=1, stride=(1, 2, 1)), (2, 3, 4, 3)),
    "kernel_larger_than_output": (nn.Conv2d(4, 6, 5), (4, 5, 6)),
}


@pytest.mark.parametrize(("module", "shape"), LAYERS.values(), ids=LAYERS)
def test_all_forms_equal_the_gradient(module: nn.Module, shape: tuple[int, ...]):
    module = module.double()
    a = torch.randn(3, *shape, dtype=torch.float64)
    g = torch.randn_like(module(a))
    expected = []
    for i in range(3):
        (grad,) = torch.autograd.grad(module(a[i : i + 1]), module.weight, g[i : i + 1])
        expected.append(grad.square().sum())
    expected = torch.stack(expected)
    with torch.no_grad():
        sizes = forms.output_sizes(module, a)
        assert sizes == tuple(g.shape[2:])
        rows = g.unflatten(1, (module.groups, -1)).flatten(3)
        gram = (forms.patch_gram(module, a, sizes) * (rows.transpose(2, 3) @ rows)).flatten(1).sum(1)
        torch.testing.assert_close(forms.direct(module, a, g), expected, rtol=1e-11, atol=0)
        torch.testing.assert_close(forms.library(module, a, g), expected, rtol=1e-11, atol=0)
        torch.testing.assert_close(gram, expected, rtol=1e-11, atol=0)


def test_the_cost_model_takes_the_gram_for_small_maps_and_not_for_large_ones():
    def chosen(channels: int, size: int, device: str = "cpu") -> str:
        module = nn.Conv2d(channels, channels, 3, padding=1)
        return forms.cheapest(module, torch.empty(1, channels, size, size, device=device), size**2)

    assert chosen(512, 4) == chosen(256, 8) == "gram"
    assert chosen(64, 32) == chosen(128, 16) == chosen(16, 32) == "library"
    assert chosen(64, 32, "meta") == "direct"  # no call of the library's for images as groups was measured elsewhere
