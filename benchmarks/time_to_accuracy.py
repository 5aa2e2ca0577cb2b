"""Time until every layer that matters is known to 5 %, at a fitted network: fisherkit against label sampling.

    python benchmarks/time_to_accuracy.py [--width 16] [--images 1000] [--rounds 3] [--out FILE.json]

A ResNet-18 is trained on real images until its training loss is below 0.01. Then, for fixed images and every layer
that holds more than 1 % of the trace, how long until the estimate is within 5 % (root mean square over draws) of the
exact trace of these images:

    fisherkit    propagated, as many draws as that takes
    BackPACK     BatchL2Grad with labels sampled from the model, as many draws as that takes

Draws are independent, so an error of r after one draw is r / sqrt(n) after n: the error of one draw comes from the
exact second moment of each method's draws on these images (no trust in either's own error bar), and the time of one
draw is measured, both interleaved in one run.

    fisherkit    exact: one measurement, which has no error of draws at all
"""

import argparse
import copy
import math
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from timing import interleaved, report, spread
from torch import nn

import fisherkit
from fisherkit.conditions import Conditions
from fisherkit.fisher import fisher_trace, trainable_layers
from fisherkit.fisher.ghost import ghost
from fisherkit.fisher.losses import find_loss
from fisherkit.fisher.undisturbed import undisturbed
from fisherkit.fisher.vectors import Vectors
from fisherkit.models import build_model
from fisherkit.training import Training, TrainingOptions

FITTED = 0.01
WANTED = 0.05
SHARE = 0.01
BATCH = 32


def fitted(width: str, data: str, data_dir: str | None, train_images: int) -> tuple[nn.Module, torch.Tensor, float]:
    """A network with training loss below `FITTED` without augmentation, its images, and the loss."""
    train, test = fisherkit.load_images(data, data_dir=data_dir)
    train = train.subset(train_images, seed=0)
    channels = train.images.shape[1]
    model = build_model("resnet18", classes=10, channels=channels, image_size=32, width=width)
    options = TrainingOptions(epochs=100, batch_size=64, lr=0.05, lr_schedule="exponential(0.95)", precision="bf16")
    for epoch in Training(model, train, test.subset(200, seed=0), options, Conditions()).epochs():
        print(f"epoch {epoch.epoch} train loss {epoch.train_loss:.4f}", flush=True)
        if epoch.train_loss < FITTED:
            return model.float().eval(), train.normalised(), epoch.train_loss
    raise SystemExit("the network did not fit its training images; use fewer --train-images")


def error_of_one_draw(model: nn.Module, images: torch.Tensor, estimator: str, draws: int) -> np.ndarray:
    """Relative standard deviation over draws of each layer's trace for these images, from many draws."""
    result = fisher_trace(model, images, estimator=estimator, draws=draws, batch_size=BATCH)
    exact = fisher_trace(model, images, estimator="exact", batch_size=BATCH)
    watched = exact.share > SHARE
    return (result.stderr_draws * math.sqrt(draws) / exact.trace)[watched]


def sampled_variance(model: nn.Module, images: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """For every watched layer: exact mean trace, and the standard deviation of one label-sampled estimate of it.

    By enumerating the labels: E_y ||J^T (p - e_y)||^4 for every image, so that rare labels are not missed.
    """
    classes = 10
    first, second = {}, {}
    count = len(images)
    with torch.no_grad():
        p = torch.cat([torch.softmax(model(part).double(), 1) for part in images.split(256)])
    for label in range(classes):
        norms = per_image_norms(model, images, torch.full((count,), label))
        for layer, values in norms.items():
            first[layer] = first.get(layer, 0) + p[:, label] * values
            second[layer] = second.get(layer, 0) + p[:, label] * values**2
    trace = np.array([float(value.mean()) for value in first.values()])
    deviation = [float((second[layer] - first[layer] ** 2).clamp_min(0).sum()) ** 0.5 / count for layer in first]
    return trace, np.array(deviation)


def per_image_norms(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
    """|| J^T (p - e_label) ||^2 for each image: {layer: [images]}."""
    parts = []
    with undisturbed(model):
        for x, y in zip(images.split(BATCH), labels.split(BATCH), strict=True):

            def vectors(z: torch.Tensor, y: torch.Tensor = y) -> Vectors:
                score = find_loss("cross_entropy").likelihood(z.detach(), y).score().to(z.dtype)
                return Vectors(1, lambda _: score)

            parts.append(ghost(model, x, vectors, trainable_layers(model)))
    return {layer: torch.cat([part[layer][0] for part in parts]) for layer in parts[0]}


def backpack_draw(model: nn.Module, images: torch.Tensor) -> Callable[[], None]:
    """One draw of sampled labels by BackPACK's BatchL2Grad, as its documentation has it."""
    from backpack import backpack, extend
    from backpack.extensions import BatchL2Grad

    extended = extend(copy.deepcopy(model).eval())
    loss = extend(nn.CrossEntropyLoss(reduction="sum"))

    def run() -> None:
        for x in images.split(BATCH):
            with torch.no_grad():
                y = torch.distributions.Categorical(logits=extended(x)).sample()
            with backpack(BatchL2Grad()):
                loss(extended(x), y).backward()
            for parameter in extended.parameters():
                parameter.grad = None

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", default="16")
    parser.add_argument("--data", default="fashion-mini")
    parser.add_argument("--data-dir")
    parser.add_argument("--train-images", type=int, default=2000)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")  # BackPACK's, of containers and of full backward hooks
    model, pool, train_loss = fitted(options.width, options.data, options.data_dir, options.train_images)
    images = pool[: options.images]

    trace, deviation = sampled_variance(model, images)
    watched = trace > SHARE * trace.sum()
    sampled = float((deviation / trace)[watched].max())
    propagated = float(error_of_one_draw(model, images, "propagated", 32).max())
    draws = {"fisherkit propagated": propagated, "BackPACK sampled": sampled}
    needed = {name: max(1, math.ceil((error / WANTED) ** 2)) for name, error in draws.items()}

    work = {
        "fisherkit propagated": lambda: fisher_trace(model, images, batch_size=BATCH),
        "BackPACK sampled": backpack_draw(model, images),
        "fisherkit exact": lambda: fisher_trace(model, images, estimator="exact", batch_size=BATCH),
    }
    ratios = interleaved(work, rounds=options.rounds, baseline="fisherkit exact")
    rows = []
    for name, values in ratios.items():
        rows.append({"name": name, **spread([value * needed.get(name, 1) for value in values])})
        if name in draws:
            print(f"{name}: worst layer's error of one draw {draws[name]:.1%}, draws to {WANTED:.0%}: {needed[name]}")
    print(f"train loss {train_loss:.4f}, {len(images)} images, {int(watched.sum())} layers above {SHARE:.0%}")
    title = f"time to {WANTED:.0%} on every layer above {SHARE:.0%}, as a ratio to fisherkit exact"
    report(title, rows, options.out)


if __name__ == "__main__":
    main()
