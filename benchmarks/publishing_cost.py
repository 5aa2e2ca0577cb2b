"""What publishing run.h5 costs: of one publication, and as a share of a run's time.

    python benchmarks/publishing_cost.py [--rows 100 1000 10000 100000] [--row-s 0.1] [--rounds 20] [--out FILE.json]

A row is 25 layers x 6 quantities, 15 numbers and an entry of the schedule, as `track` records it; all numbers are
noise. `image` is the file made in memory, `publication` that and the atomic write, both after the first of a size
(which makes the arrays); processor time is beside them, for others may use the machine. `share` is all publications of
a run of so many rows, the first and the last among them, over the time of the run, in which a row takes `--row-s`
seconds: the rows are recorded and published for real, and the clock is put forward by what training would have taken.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from timing import environment

from fisherkit.recording import RunFile

LAYERS = tuple(f"layer{number // 4}.{number % 4}.conv1" for number in range(25))
QUANTITIES = (
    *("fisher_true", "fisher_true_stderr", "fisher_empirical", "fisher_empirical_stderr"),
    *("weight_norm", "fisher_true_test"),
)
NUMBERS = (
    *("train_loss", "train_accuracy", "test_loss", "test_accuracy", "lr", "weight_decay", "elapsed_s", "entropy"),
    *("fisher_true_total", "fisher_true_total_stderr", "fisher_empirical_total", "fisher_empirical_total_stderr"),
)
CALLS = ("image", "publication")


class Ahead:
    """A clock that can be put forward."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead_s

    def sleep(self, seconds: float) -> None:
        self.ahead_s += seconds


def opened(folder: Path, clock: Ahead) -> RunFile:
    attributes = {"seed": 1, "schedule": [], "engines": dict.fromkeys(LAYERS, "ghost")}
    return RunFile(folder / "run.h5", layers=LAYERS, parameters=np.arange(25) + 1, attributes=attributes, clock=clock)


def record(run: RunFile, step: int, rng: np.random.Generator) -> None:
    """One row and its entry of the schedule."""
    series = {"epoch": step, "step": step, "deficit_active": step < 40} | dict(
        zip(NUMBERS, rng.random(12), strict=True)
    )
    entry = {"epoch": step, "step": 390 * step, "lr": 0.05 * 0.97**step, "images": 50_000, "weight_decay": 5e-4}
    entry |= {"deficits": ["blur(4)"], "augment": ["crop", "flip"], "fraction": 1.0, "events": []}
    run.extend_attribute("schedule", [entry])
    run.append(variables={name: rng.random(25) for name in QUANTITIES}, series=series)


def once(run: RunFile, call: str) -> tuple[float, float]:
    """Seconds, and processor seconds, of one image or publication after a change."""
    run.update_attributes(changed=time.monotonic())
    wall, processor = time.perf_counter(), time.process_time()
    if call == "image":
        run.image()
    else:
        assert run.publish(force=True)
    return time.perf_counter() - wall, time.process_time() - processor


def one_publication(rows: int, rounds: int) -> dict[str, float]:
    """Medians, in ms, and the size of the file."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        run = opened(Path(folder), Ahead())
        for step in range(rows):
            record(run, step, rng)
        once(run, "publication")
        found: dict[str, float] = {"rows": rows, "bytes": len(run.image()), "rounds": rounds}
        for call in CALLS:
            times = [once(run, call) for _ in range(rounds)]
            found[f"{call}_ms"], found[f"{call}_processor_ms"] = (
                1000 * statistics.median(kind) for kind in zip(*times, strict=True)
            )
            found[f"{call}_least_ms"] = 1000 * min(wall for wall, _ in times)
        return found


def share_of_a_run(rows: int, row_s: float) -> dict[str, float]:
    """All publications of a run over its time."""
    rng, clock, publications = np.random.default_rng(0), Ahead(), 1
    spent = np.zeros(2)
    with tempfile.TemporaryDirectory() as folder:
        run = opened(Path(folder), clock)
        start = clock.monotonic()
        for step in range(rows):
            record(run, step, rng)
            before = times()
            publications += run.publish(force=step == 0)
            spent += times() - before
            clock.sleep(row_s)
        before = times()
        run.close()
        spent += times() - before
        share, processor = spent / (clock.monotonic() - start)
        return {"share": share, "processor_share": processor, "publications": publications, "row_s": row_s}


def times() -> np.ndarray:
    """Seconds on the clock and of the processor."""
    return np.array([time.monotonic(), time.process_time()])


def line(row: dict[str, Any]) -> str:
    image, whole = (f"{row[f'{call}_ms']:.2f} ms (least {row[f'{call}_least_ms']:.2f})" for call in CALLS)
    return (
        f"{row['rows']:>8,} rows {row['bytes'] / 1e6:7.2f} MB  image {image}  publication {whole}, processor "
        f"{row['publication_processor_ms']:.2f}  share {row['share']:.2%} (processor {row['processor_share']:.2%}) in "
        f"{row['publications']} publications"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100, 1_000, 10_000, 100_000])
    parser.add_argument("--row-s", type=float, default=0.1)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    found = []
    for rows in options.rows:
        found.append(one_publication(rows, options.rounds) | share_of_a_run(rows, options.row_s))
        print(line(found[-1]), flush=True)
    if options.out is not None:
        options.out.write_text(json.dumps({"environment": environment(), "rows": found}, indent=1))


if __name__ == "__main__":
    main()
