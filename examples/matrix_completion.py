"""Critical periods in matrix completion: the experiment of Kleinman, Achille and Soatto 2024 at its own size.

    python examples/matrix_completion.py [FOLDER] [--quick]

A deep linear network W_N ... W_1 is fitted to some entries of a random 100 x 100 matrix of low rank. Until t0 the
entries come from another matrix, or are fewer (the deficit); then come 30,000 steps on the task, for every t0. The
damage is the error over all entries in the end, less that without a deficit.

From the authors' code (github.com/mjkleinman/CriticalPeriodDeepLinearNets): the matrices, the observed entries, the
Gaussian start, the loss, t0, the clean steps. Another learning rate: theirs is 0.2; here it is up to 2 with as many
steps fewer, so that the time, rate x steps, is the same. `steps` are always theirs.

Writes FOLDER/matrix_completion.png and FOLDER/matrix_completion.csv. docs/results/deep-linear.md explains them.
"""

import argparse
import csv
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from linear_networks import Task, product, remove
from matplotlib.axes import Axes
from matplotlib.ticker import ScalarFormatter
from torch import Tensor

import fisherkit
from fisherkit.plots.style import new_figure, style

SIZE = 100
AUTHORS_RATE = 0.2
ENDS = (0, 1_000, 5_000, 10_000, 20_000, 40_000, 100_000)  # t0, the authors' without 60,000 and 80,000
CLEAN = 30_000
# final error with one seed, fewer entries of the same matrix (1,000, then 1,500), by depth: in the authors' repository
PUBLISHED = {
    1: (0.852, 0.852, 0.852, 0.852, 0.852, 0.852, 0.852),
    2: (0.242, 0.244, 0.339, 0.364, 0.370, 0.370, 0.370),
    3: (0.075, 0.044, 0.043, 0.415, 0.868, 0.927, 0.975),
}


@dataclass(frozen=True)
class Setting:
    """Deficit: `entries` of a matrix of rank `rank`; or, with rank None, `entries` of the task's own matrix."""

    depth: int = 3
    rank: int | None = 10
    entries: int = 2000
    task_entries: int = 2000
    start: float = 1e-3

    @property
    def rate(self) -> float:
        """Small against 2 / (N sigma^(2 - 2/N) / entries), the limit of stability, where sigma is about 50."""
        return min(self.entries, self.task_entries) / 1000

    def __str__(self) -> str:
        deficit = f"rank {self.rank}" if self.rank else "same matrix"
        return f"depth {self.depth}, start {self.start:g}, {deficit}: {self.entries} -> {self.task_entries} entries"


def random_matrix(draws: np.random.RandomState, rank: int) -> Tensor:
    """Mean square 1. [n, n]"""
    left, right = (draws.randn(SIZE, rank).astype(np.float32) for _ in range(2))
    matrix = left @ right.T
    return torch.from_numpy(matrix / np.linalg.norm(matrix) * SIZE)


def tasks(setting: Setting, seed: int) -> tuple[Task, Task]:
    """Deficit and task; the loss is half the mean square over the observed entries."""
    draws, generator = np.random.RandomState(seed), torch.Generator().manual_seed(seed)
    deficit = random_matrix(draws, setting.rank) if setting.rank else None
    task = random_matrix(draws, 5)
    most = max(setting.entries, setting.task_entries)
    order = torch.multinomial(torch.ones(SIZE**2), most, replacement=False, generator=generator)

    def observed(entries: int) -> Tensor:
        mask = torch.zeros(SIZE**2)
        mask[order[:entries]] = 1
        return mask.view(SIZE, SIZE)

    return (
        Task(task if deficit is None else deficit, observed(setting.entries), 1 / setting.entries),
        Task(task, observed(setting.task_entries), 1 / setting.task_entries),
    )


def gaussian_start(setting: Setting, seed: int) -> Tensor:
    """Layers of variance start^(2/N) / n. [layer, n, n]"""
    generator = torch.Generator().manual_seed(seed)
    scale = setting.start ** (1 / setting.depth) / SIZE**0.5
    return scale * torch.randn(setting.depth, SIZE, SIZE, generator=generator)


def stacked(several: Iterable[Task]) -> Task:
    """[seed, n, n]"""
    every = list(several)
    return Task(
        torch.stack([task.target for task in every]), torch.stack([task.observed for task in every]), every[0].weight
    )


@dataclass(frozen=True, eq=False)
class Outcome:
    """Mean squared errors in the end, [t0, seed]: of all entries, of the task's training entries, of the others."""

    setting: Setting
    ends: np.ndarray  # in the authors' steps
    error: np.ndarray
    train_error: np.ndarray
    unobserved_error: np.ndarray

    @property
    def damage(self) -> np.ndarray:
        return self.error - self.error[0]


def measure(setting: Setting, seeds: range, ends: tuple[int, ...], clean: int) -> Outcome:
    pairs = [tasks(setting, seed) for seed in seeds]
    deficit, task = stacked(pair[0] for pair in pairs), stacked(pair[1] for pair in pairs)
    start = torch.stack([gaussian_start(setting, seed) for seed in seeds], dim=1)
    times = [end * AUTHORS_RATE for end in ends]
    final = product(remove(start, deficit, task, times, clean=clean * AUTHORS_RATE, rate=setting.rate).final)
    squares = (final - task.target) ** 2
    return Outcome(
        setting,
        np.array(ends),
        error=squares.mean((-1, -2)).numpy(),
        train_error=((task.observed * squares).sum((-1, -2)) * task.weight).numpy(),
        unobserved_error=task.unobserved_error(final).numpy(),
    )


BASE = Setting()
SUBSET = Setting(rank=None, entries=1000, task_entries=1500)
PANELS: dict[str, dict[str, Setting]] = {
    "Depth (rank 10, then 5)": {f"depth {depth}": replace(BASE, depth=depth) for depth in (1, 2, 3)},
    "Depth (1,000 entries, then 1,500)": {f"depth {depth}": replace(SUBSET, depth=depth) for depth in (1, 2, 3)},
    "Rank of the deficit (task: 5)": {f"rank {rank}": replace(BASE, rank=rank) for rank in (2, 5, 10)},
    "Entries observed (rank 10, then 5)": {
        f"{entries:,} entries": replace(BASE, entries=entries, task_entries=entries) for entries in (1000, 2000, 4000)
    },
    "Entries of the task (deficit: 1,000 of them)": {
        f"{entries:,} entries": replace(SUBSET, task_entries=entries) for entries in (1250, 1500, 2000)
    },
    "Scale of the start (rank 10, then 5)": {
        f"start {start:g}": replace(BASE, start=start) for start in (1e-2, 1e-3, 1e-4)
    },
}


def describe(outcome: Outcome) -> str:
    """Mean (standard deviation over the seeds)."""

    def cell(values: np.ndarray) -> str:
        return f"{values.mean():.3f} ({values.std(ddof=1):.3f})"

    flat = not np.ptp(outcome.unobserved_error, axis=0).any()
    return (
        f"{outcome.setting}\n  error {', '.join(cell(row) for row in outcome.error)}\n"
        f"  largest damage {cell(outcome.damage.max(axis=0))}; error of training entries at most "
        f"{outcome.train_error.max():.1e}; unobserved entries "
        f"{'the same after every t0, bit for bit: no critical period' if flat else 'depend on t0'}"
    )


def draw_panel(axes: Axes, title: str, outcomes: dict[str, Outcome]) -> None:
    for name, outcome in outcomes.items():
        mean, spread = outcome.error.mean(axis=1), outcome.error.std(axis=1, ddof=1)
        axes.errorbar(outcome.ends / 1000, mean, yerr=spread, fmt="o-", ms=3, capsize=2, label=name)
    if all(outcome.setting == replace(SUBSET, depth=outcome.setting.depth) for outcome in outcomes.values()):
        for colour, values in enumerate(PUBLISHED.values()):
            axes.plot(np.array(ENDS) / 1000, values, "x", color=f"C{colour}", ms=5)
        axes.plot([], [], "kx", ms=5, label="published, one seed")
    axes.set_xscale("symlog", linthresh=1)
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set(xlabel="deficit removed at t0 (1,000 steps)", ylabel="final error", ylim=(0, None))
    axes.set_title(title)
    axes.legend()


def draw(path: Path, panels: dict[str, dict[str, Outcome]]) -> None:
    rows = (len(panels) + 2) // 3
    with style():
        figure = new_figure(10, 3.1 * rows)
        axes = figure.subplots(rows, 3, squeeze=False).ravel()
        for place, (title, outcomes) in zip(axes, panels.items(), strict=False):
            draw_panel(place, title, outcomes)
        for empty in axes[len(panels) :]:
            empty.set_visible(False)
        fisherkit.plots.save(figure, path)


def write(path: Path, outcomes: Iterable[Outcome], seeds: range) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["setting", "seed", "t0", "error", "train_error", "unobserved_error"])
        for outcome in outcomes:
            values = np.stack([outcome.error, outcome.train_error, outcome.unobserved_error], axis=-1)
            for at_end, end in zip(values, outcome.ends, strict=True):
                for of_seed, seed in zip(at_end, seeds, strict=True):
                    rows.writerow([outcome.setting, seed, end, *(f"{value:.6g}" for value in of_seed)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("matrix-completion"))
    parser.add_argument("--quick", action="store_true", help="the first panel, two seeds, three t0: shows that it runs")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    chosen = dict(list(PANELS.items())[:1]) if options.quick else PANELS
    seeds, ends, clean = (range(1, 3), (0, 1_000, 40_000), 10_000) if options.quick else (range(1, 4), ENDS, CLEAN)

    done: dict[Setting, Outcome] = {}
    print(f"final error after t0 = {', '.join(map(str, ends))}: mean (sd over {len(seeds)} seeds)")
    for setting in (setting for panel in chosen.values() for setting in panel.values()):
        if setting not in done:
            done[setting] = measure(setting, seeds, ends, clean)
            print(describe(done[setting]), flush=True)
    write(options.folder / "matrix_completion.csv", done.values(), seeds)
    panels = {title: {name: done[setting] for name, setting in panel.items()} for title, panel in chosen.items()}
    draw(options.folder / "matrix_completion.png", panels)
    print(options.folder / "matrix_completion.png")


if __name__ == "__main__":
    main()
