"""What a whole per-layer measurement costs, as a ratio to one training step on the same images.

    python benchmarks/fisher_cost.py [--model resnet18] [--width 64] [--images 32] [--rounds 5] [--out FILE.json]

All engines of fisherkit (one draw, and exact) as a user calls them, with the survey of the model and batches of the
planned size, and BackPACK's own extensions, interleaved in one run; each ratio is to a training step timed just before
it. `memory` is the peak resident memory that one call adds, in a
process of its own, as a ratio to a training step's.
"""

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from timing import extra_memory, interleaved, report, spread
from torch import nn

from fisherkit.fisher import fisher_trace, fisher_traces
from fisherkit.models import build_model

STEP = "training step"
FISHERKIT = {
    "fisherkit ghost": dict(engine="ghost"),
    "fisherkit ghost, empirical": dict(engine="ghost", estimator="empirical"),
    "fisherkit ghost, projected": dict(engine="ghost", projections=4),
    "fisherkit batch": dict(engine="batch"),
    "fisherkit backpack": dict(engine="backpack"),
    "fisherkit vmap": dict(engine="vmap"),
    "fisherkit ghost, exact": dict(engine="ghost", estimator="exact"),
}
BOTH = "fisherkit true and empirical"  # what `track` records, in one pass
EXTENSIONS = ("BatchL2Grad", "DiagGGNMC", "SumGradSquared", "DiagGGNExact")
SECOND_ORDER = ("DiagGGNMC", "DiagGGNExact")


def made(name: str, model_name: str, width: str | None, images: int, threads: int) -> Callable[[], Any]:
    """A function that does the named work once on a model and images of its own."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = build_model(model_name, classes=10, channels=3, image_size=32, width=width).to(device)
    x, y = torch.randn(images, 3, 32, 32, device=device), torch.randint(0, 10, (images,), device=device)
    if name == STEP:
        return training_step(model, x, y)
    if name == "forward":
        return forward(model, x)
    if name == BOTH:
        return lambda: fisher_traces(model, x, y)
    if name in FISHERKIT:
        whole = {"batch_size": images} if name == "fisherkit batch" else {}  # it would cut 32 batches for its error bar
        return lambda: fisher_trace(model, x, y, **FISHERKIT[name], **whole)
    return backpack_extension(name.removeprefix("BackPACK "), model, x, y)


def training_step(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> Callable[[], None]:
    """Forward, backward and an SGD step with momentum, in fp32."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6, momentum=0.9)

    def run() -> None:
        model.train()
        optimizer.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()

    return run


def forward(model: nn.Module, x: torch.Tensor) -> Callable[[], None]:
    """A forward pass alone."""
    model.eval()

    def run() -> None:
        with torch.no_grad():
            model(x)

    return run


def backpack_extension(name: str, model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> Callable[[], None]:
    """BackPACK as its own documentation uses it; residual sums need its converter."""
    from backpack import backpack, extend, extensions

    warnings.simplefilter("ignore")
    extended = extend(model.eval(), use_converter=name in SECOND_ORDER)
    loss = extend(nn.CrossEntropyLoss(reduction="sum"))
    extension = getattr(extensions, name)

    def run() -> None:
        for parameter in extended.parameters():
            parameter.grad = None
        with backpack(extension()):
            loss(extended(x), y).backward()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--width", default=None)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--skip", nargs="*", default=[], help="names to leave out")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    names = [STEP, "forward", *FISHERKIT, BOTH, *(f"BackPACK {name}" for name in EXTENSIONS)]
    names = [name for name in names if name not in options.skip]
    setting = (options.model, options.width, options.images, options.threads)
    work = {name: made(name, *setting) for name in names}
    ratios = interleaved(work, rounds=options.rounds, baseline=STEP)
    step = extra_memory(made, STEP, *setting)
    rows = [
        {"name": name, **spread(values), "memory": extra_memory(made, name, *setting) / step}
        for name, values in ratios.items()
    ]
    width = f" width {options.width}" if options.width else ""
    report(f"{options.model}{width}, {options.images} images, ratios to a training step", rows, options.out)


if __name__ == "__main__":
    main()
