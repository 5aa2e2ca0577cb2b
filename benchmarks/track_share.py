"""What recording costs a training: the share of an epoch over 50,000 images that measuring 2,000 probe images takes.

    python benchmarks/track_share.py [--model resnet18] [--width 16] [--precision fp32] [--rounds 5] [--out FILE.json]

`FisherTracker.record` on some images and `Training` steps on as many, interleaved in one run; their ratio times
2,000 / 50,000. An epoch of `track` also evaluates the test images, which is left out here: the true share is smaller.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import torch
from timing import interleaved, report, spread

import fisherkit
from fisherkit.conditions import Conditions
from fisherkit.images import ImageSet
from fisherkit.models import build_model
from fisherkit.training import Training, TrainingOptions

PROBE, EPOCH = 2_000, 50_000


def steps_over(training: Training, images: int) -> Callable[[], None]:
    """A function that trains on as many images."""
    steps: Iterator[object] = training.steps()
    each = -(-images // training.options.batch_size)

    def run() -> None:
        for _ in range(each):
            next(steps)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--width", default=None)
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    train, test = colour()
    model = build_model(options.model, classes=10, channels=3, image_size=32, width=options.width)
    chosen = TrainingOptions(epochs=1000, precision=options.precision)
    training = Training(model, train, test.subset(10, seed=0), chosen, Conditions())
    probe = train.subset(options.images, seed=0)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        both = fisherkit.FisherTracker(Path(folder) / "both.h5", training.model, probe)
        true = fisherkit.FisherTracker(Path(folder) / "true.h5", training.model, probe, empirical=False)
        number = count()
        work = {
            "training": steps_over(training, options.images),
            "recording the true Fisher": lambda: true.record(0, step=next(number)),
            "recording true and empirical": lambda: both.record(0, step=next(number)),
        }
        for name, ratios in interleaved(work, rounds=options.rounds, baseline="training").items():
            rows.append({"name": name, **spread([100 * ratio * PROBE / EPOCH for ratio in ratios])})
    width = f" width {options.width}" if options.width else ""
    title = (
        f"{options.model}{width}, {options.precision}: per cent of an epoch of {EPOCH:,} images for {PROBE:,} images"
    )
    report(title, rows[1:], options.out)


def colour() -> tuple[ImageSet, ImageSet]:
    """Random images of CIFAR's shape: what they show changes no time."""
    generator = torch.Generator().manual_seed(0)
    sets = []
    for images in (5_000, 100):
        pixels = torch.randint(0, 256, (images, 3, 32, 32), generator=generator, dtype=torch.uint8)
        labels = torch.arange(images) % 10
        names = tuple(map(str, range(10)))
        sets.append(ImageSet(pixels, labels, names, "random", (0.5,) * 3, (0.25,) * 3))
    return sets[0], sets[1]


if __name__ == "__main__":
    main()
