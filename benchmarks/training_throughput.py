"""Training throughput of fisherkit against a plain PyTorch loop, and the share of its time outside the model.

    python benchmarks/training_throughput.py [--model resnet18] [--width 16] [--precision fp32] [--images 512]
                                             [--rounds 5] [--only TEXT ...] [--out FILE.json]

Every loop trains the same network on the same images in the same batches and precision, each in a process of its own,
one epoch at a time, in turn; the ratio is to the harness's epoch timed just before. `outside the model` is the share of
an epoch that is not between the start of a forward pass and the end of the optimizer's step, from the same epochs. Each
process computes on `--threads` threads; the loader's workers come on top of them.
"""

import argparse
import contextlib
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from plain_loop import loader, train_epoch
from timing import environment, interleaved, seconds, spread, table_lines
from torch import nn
from track_share import colour

from fisherkit.conditions import Conditions
from fisherkit.models import build_model
from fisherkit.training import Training, TrainingOptions, deterministic, keep_freed_memory

BATCH, LR, WEIGHT_DECAY = 128, 0.001, 5e-4


@dataclass(frozen=True)
class Setting:
    """What all loops have in common."""

    model: str
    width: str | None
    precision: str
    images: int
    threads: int


@dataclass(frozen=True)
class Loop:
    """One way to train: the harness, or the plain loop with that number of workers."""

    workers: int | None = None
    channels_last: bool = True
    augment: bool = True
    deficit: str | None = None
    deterministic: bool = False
    keep_memory: bool = True


HARNESS = "harness"
LOOPS: Mapping[str, Loop] = {
    HARNESS: Loop(),
    "harness, deterministic": Loop(deterministic=True),
    "harness, no augmentation": Loop(augment=False),
    "harness, under blur": Loop(deficit="blur"),
    "harness, under noise drawn every epoch": Loop(deficit="noise"),
    "harness, contiguous": Loop(channels_last=False),
    "harness, freed memory given back": Loop(keep_memory=False),
    "plain, 0 workers": Loop(0, channels_last=False, keep_memory=False),
    "plain, 2 workers": Loop(2, channels_last=False, keep_memory=False),
    "plain, 0 workers, channels_last": Loop(0, keep_memory=False),
    "plain, 0 workers, channels_last, freed memory kept": Loop(0),
    "plain, 0 workers, no augmentation": Loop(0, channels_last=False, augment=False, keep_memory=False),
}


@dataclass
class ModelClock:
    """Seconds in the model: from the start of each forward pass to the end of the optimizer's step.

    So forward, loss, backward and step, and the passes of an evaluation; not the making of a batch, zeroing gradients,
    random numbers, counting.
    """

    spent: float = 0.0
    started: float = field(default=0.0, init=False)

    def watch(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Time this model from now on."""
        model.register_forward_pre_hook(self._start)
        model.register_forward_hook(self._end_of_evaluation)
        optimizer.register_step_post_hook(self._stop)

    def _start(self, *_: Any) -> None:
        self.started = time.perf_counter()

    def _stop(self, *_: Any) -> None:
        self.spent += time.perf_counter() - self.started

    def _end_of_evaluation(self, model: nn.Module, *_: Any) -> None:
        if not model.training:
            self._stop()


def epochs_of(loop: Loop, setting: Setting, clock: ModelClock) -> Callable[[], Any]:
    """A function that trains for one epoch in that way."""
    model = build_model(setting.model, classes=10, channels=3, image_size=32, width=setting.width)
    model = model.to("cuda" if torch.cuda.is_available() else "cpu")
    made = harness_epochs if loop.workers is None else plain_epochs
    return made(loop, setting, model, clock)


def harness_epochs(loop: Loop, setting: Setting, model: nn.Module, clock: ModelClock) -> Callable[[], Any]:
    """Training's epochs, with an evaluation of one test image at the end of each."""
    train, test = colour()
    options = TrainingOptions(
        epochs=10**6,
        batch_size=BATCH,
        lr=LR,
        lr_schedule="constant",
        precision=setting.precision,
        channels_last=loop.channels_last,
    )
    conditions = Conditions.parse(
        weight_decay=[str(WEIGHT_DECAY)],
        augment=["crop+flip"] if loop.augment else [],
        deficits=[loop.deficit] if loop.deficit else [],
    )
    chosen = torch.arange(setting.images)
    device = next(model.parameters()).device
    training = Training(model, train.select(chosen), test.select(chosen[:1]), options, conditions, device=device)
    clock.watch(training.model, training.optimizer)
    epochs = training.epochs()
    return lambda: next(epochs)


def plain_epochs(loop: Loop, setting: Setting, model: nn.Module, clock: ModelClock) -> Callable[[], Any]:
    """The plain loop's epochs; it evaluates nothing."""
    assert loop.workers is not None
    if loop.channels_last:
        model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=0.9, weight_decay=WEIGHT_DECAY)
    images = colour()[0].select(torch.arange(setting.images))
    batches = loader(images, batch_size=BATCH, workers=loop.workers, augment=loop.augment)
    clock.watch(model, optimizer)
    bf16 = setting.precision == "bf16"
    return lambda: train_epoch(model, optimizer, batches, bf16=bf16, channels_last=loop.channels_last)


def serve(connection: Connection, loop: Loop, setting: Setting) -> None:
    """Train an epoch whenever asked, and answer with the share of its time outside the model."""
    if loop.keep_memory:
        keep_freed_memory()
    torch.set_num_threads(setting.threads)
    clock = ModelClock()
    with deterministic() if loop.deterministic else contextlib.nullcontext():
        epoch = epochs_of(loop, setting, clock)
        while connection.recv():
            clock.spent = 0.0
            elapsed = seconds(epoch)
            connection.send(1 - clock.spent / elapsed)


@contextlib.contextmanager
def contestant(loop: Loop, setting: Setting) -> Iterator[Callable[[], float]]:
    """A function that lets one loop train an epoch in its own process, and gives its share outside the model."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs, loop, setting))
    process.start()
    theirs.close()

    def turn() -> float:
        ours.send(True)
        return float(ours.recv())

    try:
        yield turn
    finally:
        ours.send(False)
        process.join()


def compared(names: list[str], setting: Setting, *, rounds: int) -> list[dict[str, Any]]:
    """A row for each loop: time as a ratio to the harness, images per second, per cent outside the model."""
    outside: dict[str, list[float]] = {name: [] for name in names}
    times: dict[str, list[float]] = {name: [] for name in names}
    with contextlib.ExitStack() as stack:

        def noted(name: str) -> Callable[[], None]:
            turn = stack.enter_context(contestant(LOOPS[name], setting))

            def run() -> None:
                started = time.perf_counter()
                outside[name].append(100 * turn())
                times[name].append(time.perf_counter() - started)

            return run

        ratios = interleaved({name: noted(name) for name in names}, rounds=rounds, baseline=HARNESS)
    rows = []
    for name in names:  # the first epoch of each started its processes
        row = {"name": name, **spread(ratios[name])}
        row["images_per_s"] = setting.images / statistics.median(times[name][1:])
        if not torch.cuda.is_available():
            row["outside"] = statistics.median(outside[name][1:])
        rows.append(row)
    return rows


def write(path: Path, table: dict[str, Any]) -> None:
    """Put the table into the file, in the place of one with the same title."""
    tables = json.loads(path.read_text())["tables"] if path.exists() else []
    at = next((k for k, other in enumerate(tables) if other["title"] == table["title"]), len(tables))
    tables[at : at + 1] = [table]
    path.write_text(json.dumps({"tables": tables}, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--width")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--images", type=int, default=512, help="of an epoch, at most 5,000")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=[""], help="loops whose names have one of these texts")
    parser.add_argument("--out", type=Path, help="JSON file of several tables to add this one to")
    options = parser.parse_args()
    width = options.width or ("16" if options.model == "resnet18" else None)
    setting = Setting(options.model, width, options.precision, options.images, options.threads)
    names = [name for name in LOOPS if name == HARNESS or any(text in name for text in options.only)]
    torch.set_num_threads(options.threads)
    size = f" width {width}" if width else ""
    table = {
        "title": f"{options.model}{size}, {options.precision}, {options.images} images: ratios to the harness's time",
        "environment": environment(),
        "rows": compared(names, setting, rounds=options.rounds),
    }
    print("\n".join(table_lines(table)))
    if options.out is not None:
        write(options.out, table)


if __name__ == "__main__":
    main()
