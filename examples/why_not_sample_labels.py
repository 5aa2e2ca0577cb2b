"""Why the default estimator is not label sampling: what sampled labels miss late in training, and do not say.

    python examples/why_not_sample_labels.py [--out PICTURE.png] [--quick]

Trains a small network to a training loss below 0.001 and measures tr F of the same 256 images on the way: exactly,
and from two draws an image with `sampled` labels and with `propagated` signs, each with many seeds. Prints and draws
each estimator's error over the seeds beside the standard error that a measurement claims for itself
(`stderr_draws`). Once the network is sure of its answers nearly every drawn label is the predicted one and says
nothing; the rare others carry the whole trace. A measurement that drew none of them is far too low and claims to be
exact (`FisherTrace.notes` warns of it). Needs no download: the images come with fisherkit.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import nn

import fisherkit
from fisherkit.plots.style import new_figure, style

DRAWS = 2  # the fewest that tell their own noise
COLOURS = {"sampled": "tab:red", "propagated": "tab:blue"}


@dataclass(frozen=True)
class Measured:
    """One estimator at one moment of training; relative to the exact trace, one value a seed."""

    epoch: int
    loss: float
    exact: float  # nats^2
    estimator: str
    estimates: np.ndarray
    claimed: np.ndarray

    @property
    def error(self) -> float:
        """Relative rms error."""
        return float(np.sqrt(np.mean((self.estimates - 1) ** 2)))

    @property
    def covered(self) -> float:
        """Share of the seeds whose estimate +- 1.96 claimed standard errors holds the exact trace."""
        return float(np.mean(np.abs(self.estimates - 1) <= 1.96 * self.claimed))

    def __str__(self) -> str:
        return (
            f"{self.epoch:5}  {self.loss:8.4f}  {self.exact:8.4g}  {self.estimator:10}  {self.error:9.1%}  "
            f"{np.median(self.claimed):14.1%}  {np.median(self.estimates):15.2f}  {self.covered:7.0%}"
        )


def measure(model: nn.Module, images: torch.Tensor, epoch: int, loss: float, *, seeds: int) -> Iterator[Measured]:
    exact = fisherkit.fisher_trace(model, images, estimator="exact").total
    for estimator in COLOURS:
        results = [
            fisherkit.fisher_trace(model, images, estimator=estimator, draws=DRAWS, seed=seed) for seed in range(seeds)
        ]
        estimates = np.array([result.total for result in results]) / exact
        claimed = np.array([result.total_stderr_draws for result in results]) / exact
        yield Measured(epoch, loss, exact, estimator, estimates, claimed)


def train_and_measure(images: fisherkit.ImageSet, *, seeds: int, last_loss: float) -> Iterator[Measured]:
    """A measurement whenever the training loss has fallen to a third."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * 64, 10),
    )
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    x, y = images.normalised(), images.labels
    epoch, loss, goal = 0, float("inf"), 1.0
    while goal > last_loss / 3:
        epoch += 1
        for rows in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
        with torch.no_grad():
            loss = float(nn.functional.cross_entropy(model(x), y))
        if loss <= goal:
            yield from measure(model, x[:256], epoch, loss, seeds=seeds)
            goal = min(goal, loss) / 3


def draw(found: list[Measured], path: Path) -> None:
    with style():
        figure = new_figure(9.5, 3.8)
        course, last = figure.subplots(1, 2)
        draw_course(course, found)
        draw_last(last, [row for row in found if row.epoch == found[-1].epoch])
        fisherkit.plots.save(figure, path)


def draw_course(axes: Axes, found: list[Measured]) -> None:
    """Error and claim through training."""
    for estimator, colour in COLOURS.items():
        rows = [row for row in found if row.estimator == estimator]
        losses = [row.loss for row in rows]
        axes.plot(
            losses, [row.error for row in rows], "o-", color=colour, clip_on=False, label=f"{estimator}: rms error"
        )
        claims = [float(np.median(row.claimed)) for row in rows]
        label = f"{estimator}: claimed (median)"
        axes.plot(losses, claims, "o--", color=colour, mfc="white", clip_on=False, zorder=3, label=label)
    axes.set(xscale="log", xlabel="training loss (nats; training goes to the right)", ylim=(0, None))
    axes.set_ylabel(f"standard error of {DRAWS} draws / tr F")
    axes.invert_xaxis()
    axes.yaxis.set_major_formatter("{x:.0%}")
    axes.legend()
    axes.set_title(f"Error over {len(found[0].estimates)} seeds, and what a measurement claims")


def draw_last(axes: Axes, rows: list[Measured]) -> None:
    """Every seed's estimate with its own bar, at the last measurement."""
    start = 0
    for row in rows:
        order = np.argsort(row.estimates)
        place = start + np.arange(len(order))
        bars = 1.96 * row.claimed[order]
        axes.errorbar(place, row.estimates[order], bars, fmt="o", ms=3, lw=1, color=COLOURS[row.estimator])
        axes.text(place.mean(), 0.98, row.estimator, color=COLOURS[row.estimator], ha="center", va="top",
                  transform=axes.get_xaxis_transform())  # fmt: skip
        start += len(order) + 2
    axes.axhline(1, color="black", lw=1)
    axes.set(xticks=[], xlabel="seeds, sorted", ylabel="estimate / exact (± 1.96 claimed)")
    axes.margins(y=0.12)
    axes.set_title(f"Every seed at training loss {rows[0].loss:.1g}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("why_not_sample_labels.png"))
    parser.add_argument("--quick", action="store_true", help="fewer images and seeds: shows that it runs, no more")
    options = parser.parse_args()
    torch.set_num_threads(1)  # the network is so small that threads would wait for each other most of the time
    train, _ = fisherkit.load_images("fashion-mini")
    print("epoch      loss    exact F  estimator   rms error  claimed median  median estimate  covered")
    found = []
    images = train.subset(250 if options.quick else 1000, seed=0)
    for row in train_and_measure(images, seeds=4 if options.quick else 24, last_loss=0.02 if options.quick else 1e-3):
        print(row, flush=True)
        found.append(row)
    draw(found, options.out)
    print(options.out)


if __name__ == "__main__":
    main()
