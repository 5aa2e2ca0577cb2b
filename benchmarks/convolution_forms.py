"""Which form of a convolution's per-image norm is fastest: the evidence behind the cost model.

    python benchmarks/convolution_forms.py [--images 32] [--rounds 7] [--threads 2]

For each layer: the time of the three forms as a ratio to `direct`, interleaved in one run, and what the cost model
of fisherkit/fisher/forms/convolution.py chooses.
"""

import argparse
from functools import partial
from math import prod

import torch
from timing import environment, interleaved, spread
from torch import nn

from fisherkit.fisher.forms import convolution as forms

LAYERS = (  # inputs, outputs, size, stride, kernel: ResNet-18 of width 64 and 16
    (3, 64, 32, 1, 3),
    (64, 64, 32, 1, 3),
    (64, 128, 32, 2, 3),
    (64, 128, 32, 2, 1),
    (128, 128, 16, 1, 3),
    (256, 256, 8, 1, 3),
    (512, 512, 4, 1, 3),
    (16, 16, 32, 1, 3),
    (32, 32, 16, 1, 3),
    (64, 64, 8, 1, 3),
    (128, 128, 4, 1, 3),
)
GRAM_LIMIT = 2**18  # output positions squared: beyond this the Gram matrix does not fit


def gram(module: nn.Conv2d, a: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    """The whole Gram form, as `convolution` combines it."""
    rows = g.unflatten(1, (module.groups, -1)).flatten(3)
    patches = forms.patch_gram(module, a, tuple(g.shape[2:]))
    return (patches * (rows.transpose(2, 3) @ rows)).flatten(1).sum(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for inputs, outputs, size, stride, kernel in LAYERS:
        module = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2).requires_grad_(False)
        a = torch.randn(options.images, inputs, size, size)
        g = torch.randn_like(module(a))
        work = {
            "direct": partial(forms.direct, module, a, g),
            "library": partial(forms.library, module, a, g),
        }
        if prod(g.shape[2:]) ** 2 <= GRAM_LIMIT:
            work["gram"] = partial(gram, module, a, g)
        found = interleaved(work, rounds=options.rounds, baseline="direct")
        text = "  ".join(f"{name} {spread(ratios)['median']:.2f}" for name, ratios in found.items())
        chosen = forms.cheapest(module, a, prod(g.shape[2:]))
        print(f"{inputs:4} -> {outputs:4} at {size:2}, stride {stride}, kernel {kernel}:  {text}  chosen: {chosen}")
    print(environment(), f"n={options.rounds}")


if __name__ == "__main__":
    main()
