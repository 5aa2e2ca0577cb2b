"""A critical period whose answer is known: deep linear networks that fill in a matrix.

    python examples/deep_linear.py [FOLDER] [--quick]

The network is a product W = W_N ... W_1 of square matrices, fitted by gradient descent in float64 to the observed
entries of a matrix of low rank; what it makes of the others is its generalization. In a deficit, from 0 to t0, the
entries come from another matrix (Kleinman, Achille and Soatto 2024, arXiv 2308.12221). Two problems:

- hidden diagonal: so symmetric that the gradient flow can be solved, with the error after every t0 as an equation;
- random matrices, the protocol of the paper on a small scale. A network of one layer cannot have a critical period
  here, and the time after which a deficit does harm follows from how fast its singular values are learnt.

Writes FOLDER/deep_linear.png, and FOLDER/control.h5 and FOLDER/deficit.h5 with the exact Fisher of each layer through
time, beside its closed form. docs/results/deep-linear.md explains the figure.
"""

import argparse
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from linear_networks import (
    START,
    Task,
    descend,
    fisher_closed_form,
    hidden_diagonal,
    hidden_diagonal_error,
    learnt,
    product,
    random_matrices,
    remove,
    small_identity,
    time_to_learn,
)
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter, ScalarFormatter
from scipy.optimize import brentq
from torch import nn

import fisherkit
from fisherkit.plots.style import new_figure, style

COLOURS = {1: "C0", 2: "C1", 3: "C2"}  # by depth


def observed_modes(deficit: Task, rank: int) -> np.ndarray:
    """Singular values of the matrix that small weights are driven by: the observed entries, times the weight.

    They are not those of the deficit (1): leaving entries out spreads them. [seed, rank]
    """
    return torch.linalg.svdvals(deficit.weight * deficit.observed * deficit.target)[:, :rank].numpy()


def time_of_half_the_deficit(depth: int, start: float, modes: np.ndarray) -> float:
    """The prediction: when the sum of the modes has half its last value, each on its own closed-form trajectory."""

    def missing(time: float) -> float:
        return sum(learnt(depth, start, time, float(mode)) for mode in modes) - float(modes.sum()) / 2

    return float(brentq(missing, 0.0, time_to_learn(depth, start, 0.9, float(modes.min()))))


def time_of_half_the_damage(ends: np.ndarray, errors: np.ndarray) -> float:
    """The measurement: the first t0 whose error is half-way from that of no deficit to that of the longest."""
    half = (errors[0] + errors[-1]) / 2
    after = int(np.argmax(errors >= half))
    return float(np.interp(half, errors[after - 1 : after + 1], ends[after - 1 : after + 1]))


@dataclass(frozen=True)
class Size:
    """How much is computed."""

    diagonal: int = 6
    matrix: int = 30
    ranks: tuple[int, int] = (6, 2)
    seeds: int = 3
    starts: tuple[float, ...] = (1e-2, START, 1e-4, 1e-5)
    rate: float = 0.05
    diagonal_rate: float = 0.005
    rows: int = 60


QUICK = Size(diagonal=4, matrix=16, ranks=(3, 1), seeds=2, starts=(1e-2, START), diagonal_rate=0.02, rows=12)


@dataclass(frozen=True, eq=False)
class Solved:
    """The hidden diagonal after deficits that end at `ends`: [t0], by gradient descent and as they are known to be."""

    ends: np.ndarray
    singular: np.ndarray  # singular values of the product when the deficit ends
    singular_known: np.ndarray
    error: np.ndarray  # of the diagonal, in the end
    error_known: np.ndarray


def solve(depth: int, size: Size, rate: float) -> Solved:
    deficit, task = hidden_diagonal(size.diagonal)
    ends = whole_steps(np.linspace(0, 2.5, 51) * time_to_learn(depth, START), rate)
    done = remove(small_identity(depth, size.diagonal), deficit, task, ends, clean=20, rate=rate)
    known = [learnt(depth, START, end) for end in ends]
    return Solved(
        ends,
        singular=torch.linalg.svdvals(product(done.at_end))[:, 0].numpy(),
        singular_known=np.array(known),
        error=task.unobserved_error(product(done.final)).numpy(),
        error_known=np.array([hidden_diagonal_error(depth, value, size.diagonal) for value in known]),
    )


@dataclass(frozen=True, eq=False)
class Completed:
    """The random matrices: errors on the unobserved entries [t0, seed], and the times of half of it, [seed]."""

    depth: int
    start: float
    ends: np.ndarray
    errors: np.ndarray
    predicted: np.ndarray
    measured: np.ndarray


def complete(depth: int, start: float, size: Size) -> Completed:
    deficit, task = random_matrices(size.matrix, ranks=size.ranks, seeds=size.seeds)
    scale = time_to_learn(3 if depth == 1 else depth, start)  # for a depth without a plateau the longest there is
    ends = whole_steps(np.array([*np.linspace(0, 2, 21), 3, 4]) * scale, size.rate)
    weights = small_identity(depth, size.matrix, start)[:, None].expand(-1, size.seeds, -1, -1)
    done = remove(weights, deficit, task, ends, clean=60 + 3 * scale, rate=size.rate)
    errors = task.unobserved_error(product(done.final)).numpy()
    if depth == 1:  # nothing to predict or to time
        nothing = np.full(size.seeds, np.nan)
        return Completed(depth, start, ends, errors, nothing, nothing)
    predicted = [time_of_half_the_deficit(depth, start, modes) for modes in observed_modes(deficit, size.ranks[0])]
    measured = [time_of_half_the_damage(ends, of_seed) for of_seed in errors.T]
    return Completed(depth, start, ends, errors, np.array(predicted), np.array(measured))


def whole_steps(times: np.ndarray, rate: float) -> np.ndarray:
    return np.asarray(np.round(times / rate) * rate)


def track(path: Path, size: Size, until: float, *, stop: float, depth: int = 3) -> fisherkit.Trajectory:
    """One network through time, with the deficit until `until`, its exact Fisher and the closed form beside it."""
    deficit, task = (
        Task(both.target[0], both.observed[0], both.weight)
        for both in random_matrices(size.matrix, ranks=size.ranks, seeds=1)
    )
    n = size.matrix
    model = nn.Sequential(*(nn.Linear(n, n, bias=False, dtype=torch.float64) for _ in range(depth)))
    weights = small_identity(depth, n)
    times = whole_steps(np.linspace(0, stop, size.rows + 1), size.rate)
    path.unlink(missing_ok=True)
    probe = torch.eye(n, dtype=torch.float64)
    with fisherkit.FisherTracker(path, model, probe, loss="squared_error", estimator="exact") as tracker:
        for before, time in pairwise([0.0, *times]):
            active = before < min(until, time)
            weights = descend(weights, deficit if active else task, time - before, size.rate)
            with torch.no_grad():
                for layer, values in zip(model, weights, strict=True):
                    layer.weight.copy_(values)
            closed = {f"closed_form_{layer}": float(value) for layer, value in enumerate(fisher_closed_form(weights))}
            error = float(task.unobserved_error(product(weights)))
            tracker.record(time, deficit_active=float(active), unobserved_error=error, **closed)
        return tracker.trajectory


def closed_form_of(trajectory: fisherkit.Trajectory) -> np.ndarray:
    """[time, layer]"""
    return np.stack([trajectory.series[f"closed_form_{layer}"] for layer in range(len(trajectory.layers))], axis=1)


def draw(
    path: Path, solved: dict[int, Solved], completed: list[Completed], tracked: list[fisherkit.Trajectory], until: float
) -> None:
    with style():
        figure = new_figure(9, 6.2)
        panels = figure.subplots(2, 2)
        draw_solved(panels[0, 0], solved)
        draw_completed(panels[0, 1], [curve for curve in completed if curve.start == START])
        draw_times(panels[1, 0], [curve for curve in completed if curve.depth > 1])
        draw_fisher(panels[1, 1], tracked, until)
        fisherkit.plots.save(figure, path)


def draw_solved(axes: Axes, solved: dict[int, Solved]) -> None:
    for depth, found in solved.items():
        axes.plot(found.ends, found.error_known, color=COLOURS[depth], label=f"depth {depth}, closed form")
        axes.plot(found.ends, found.error, "o", ms=2.5, color=COLOURS[depth], label=f"depth {depth}, gradient descent")
        axes.axvline(time_to_learn(depth, START), color=COLOURS[depth], ls=":", lw=1)
    axes.set(xlabel="deficit removed at time t0", ylabel="final error of the diagonal")
    axes.set_title("Hidden diagonal (dotted: half of the deficit learnt)")
    axes.legend()


def draw_completed(axes: Axes, completed: list[Completed]) -> None:
    for curve in completed:
        axes.plot(curve.ends, curve.errors, color=COLOURS[curve.depth], lw=0.6, alpha=0.6)
        mean = curve.errors.mean(axis=1)
        axes.plot(curve.ends, mean, "o-", ms=3, color=COLOURS[curve.depth], label=f"depth {curve.depth}, mean of seeds")
        if curve.depth > 1:
            axes.axvline(curve.predicted.mean(), color=COLOURS[curve.depth], ls=":", lw=1)
    axes.set(xlabel="deficit removed at time t0", ylabel="final error of the unobserved entries", yscale="log")
    axes.set_title("Random matrices (dotted: predicted half-time)")
    axes.legend()


def draw_times(axes: Axes, completed: list[Completed]) -> None:
    for curve in completed:
        label = f"depth {curve.depth}" if curve.start == START else None
        axes.loglog(curve.predicted, curve.measured, "o", ms=4, color=COLOURS[curve.depth], label=label)
    ends = [min(curve.predicted.min() for curve in completed), max(curve.measured.max() for curve in completed)]
    axes.loglog(ends, ends, color="black", lw=0.6)
    axes.set(xlabel="predicted: half of the deficit learnt", ylabel="measured: half of the damage done")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(ScalarFormatter())
        axis.set_minor_formatter(NullFormatter())
    axes.set_title("Random matrices, all starting scales and seeds")
    axes.legend()


def draw_fisher(axes: Axes, tracked: list[fisherkit.Trajectory], until: float) -> None:
    for trajectory, line, name in zip(tracked, ("--", "-"), ("no deficit", "deficit"), strict=True):
        for layer, values in enumerate(trajectory.variable("fisher_true").T):
            label = f"layer {layer + 1}, {name}"
            width = 3 - layer  # the first and the last are nearly the same
            axes.plot(trajectory.series["epoch"], values, line, color=f"C{layer}", lw=width, label=label)
        axes.plot(trajectory.series["epoch"][::6], closed_form_of(trajectory)[::6], "k.", ms=2.5)
    axes.axvspan(0, until, color="0.9", lw=0)
    axes.set(xlabel="time (grey: deficit)", ylabel="tr F of the layer", yscale="log")
    axes.set_title("Fisher of depth 3: exact (lines), closed form (dots)")
    axes.legend()


def report_solved(solved: dict[int, Solved], rate: float) -> None:
    print(f"hidden diagonal, steps of {rate:g}: gradient descent against closed form, largest difference")
    for depth, found in solved.items():
        singular = np.abs(found.singular - found.singular_known).max()
        error = np.abs(found.error - found.error_known).max()
        last = found.error_known[-1]
        print(f"  depth {depth}: singular values at t0 {singular:.1e} of 1, final error {error:.1e} of {last:.2g}")


def report_completed(curve: Completed) -> None:
    times = "no critical period: the error is the same after every t0, bit for bit"
    if curve.depth > 1:
        pairs = zip(curve.predicted, curve.measured, strict=True)
        times = "t0 predicted / measured: " + ", ".join(f"{p:.1f} / {m:.1f}" for p, m in pairs)
    elif np.ptp(curve.errors, axis=0).any():
        times = f"the error depends on t0, by {np.ptp(curve.errors, axis=0).max():.1e}"
    first, last = curve.errors[0].mean(), curve.errors[-1].mean()
    print(f"  depth {curve.depth}, start {curve.start:g}: final error {first:.2g} -> {last:.2g}; {times}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("deep-linear"))
    parser.add_argument("--quick", action="store_true", help="smaller matrices: shows that it runs, no more")
    options = parser.parse_args()
    size: Size = QUICK if options.quick else Size()
    torch.set_num_threads(1)  # matrices this small are slower on several
    options.folder.mkdir(parents=True, exist_ok=True)

    for rate in (2 * size.diagonal_rate, size.diagonal_rate):
        solved = {depth: solve(depth, size, rate) for depth in (2, 3)}
        report_solved(solved, rate)
    print("random matrices: final error without a deficit -> after the longest, mean of seeds")
    completed = []
    for depth, start in [(1, START), *((depth, start) for depth in (2, 3) for start in size.starts)]:
        completed.append(complete(depth, start, size))
        report_completed(completed[-1])
    until, stop = 20.0, 60.0
    tracked = [track(options.folder / "control.h5", size, 0.0, stop=stop)]
    tracked.append(track(options.folder / "deficit.h5", size, until, stop=stop))
    differences = [np.abs(run.variable("fisher_true") / closed_form_of(run) - 1).max() for run in tracked]
    print(f"tr F of each layer, exact against closed form: largest relative difference {max(differences):.1e}")
    draw(options.folder / "deep_linear.png", solved, completed, tracked, until)
    print(options.folder / "deep_linear.png")


if __name__ == "__main__":
    main()
