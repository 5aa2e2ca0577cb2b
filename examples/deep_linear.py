"""Critical periods whose answer is known: deep linear networks.

    python examples/deep_linear.py [FOLDER]

Two problems so small that the gradient flow can be solved, and gradient descent (float64) held against it:

- hidden diagonal, a matrix completion. The network W_N ... W_1 first fits another matrix, until t0 (the deficit);
  then the all-ones matrix without its diagonal. What it makes of the diagonal is its generalization.
- two pathways with outputs a + b, and b cannot learn for a while. Late in training that must not matter.

Both after Kleinman, Achille and Soatto 2024 (arXiv 2308.12221). Writes FOLDER/deep_linear.png, and FOLDER/control.h5
and FOLDER/deficit.h5 with the exact Fisher of each layer through time. Ends with status 1 where measurement and known
answer disagree. docs/results/deep-linear.md explains the figure; matrix_completion.py is the paper's own experiment.
"""

import argparse
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from linear_networks import (
    START,
    Pathways,
    descend,
    fisher_closed_form,
    hidden_diagonal,
    hidden_diagonal_error,
    learnt,
    product,
    remove,
    share_of_b,
    small_identity,
    time_to_learn,
)
from matplotlib.axes import Axes
from torch import nn

import fisherkit
from fisherkit.plots.style import new_figure, style

SIZE = 6  # of the hidden diagonal
RATE = 0.005
AGREES = 0.02  # of the largest damage: steps of RATE differ from the flow by about half of it
DEPTHS = (2, 3)


@dataclass(frozen=True, eq=False)
class Curve:
    """Damage in the end against a time (t0, or the onset of the deficit): by gradient descent and as it is known."""

    title: str
    depth: int
    times: np.ndarray
    measured: np.ndarray
    known: np.ndarray

    @property
    def difference(self) -> float:
        return float(np.abs(self.measured - self.known).max() / self.known.max())


def half_time(times: np.ndarray, damage: np.ndarray) -> float:
    """Where the damage crosses half its largest value."""
    above = damage >= damage.max() / 2
    after = int(np.flatnonzero(above != above[0])[0])
    (x0, x1), (y0, y1) = times[after - 1 : after + 1], damage[after - 1 : after + 1]
    return float(x0 + (damage.max() / 2 - y0) / (y1 - y0) * (x1 - x0))


def whole_steps(times: np.ndarray) -> np.ndarray:
    return np.asarray(np.round(times / RATE) * RATE)


def diagonal_removed(depth: int) -> Curve:
    deficit, task = hidden_diagonal(SIZE)
    ends = whole_steps(np.linspace(0, 2, 41) * time_to_learn(depth, START))
    final = remove(small_identity(depth, SIZE), deficit, task, ends, clean=10, rate=RATE).final
    known = [hidden_diagonal_error(depth, learnt(depth, START, end), SIZE) for end in ends]
    return Curve("hidden diagonal, t0", depth, ends, task.unobserved_error(product(final)).numpy(), np.array(known))


def two_pathways(depth: int) -> torch.Tensor:
    return small_identity(depth, 1)[:, None].expand(-1, 2, -1, -1)


def damage_of(weights: torch.Tensor) -> np.ndarray:
    """What pathway b lacks of its half. [time]"""
    return 0.5 - product(weights)[:, 1, 0, 0].numpy()


def pathway_removed(depth: int) -> Curve:
    ends = whole_steps(np.linspace(0, 0.5, 41) * time_to_learn(depth, START))
    final = remove(two_pathways(depth), Pathways((1, 0)), Pathways(), ends, clean=25, rate=RATE).final
    known = [0.5 - share_of_b(depth, 0, end) for end in ends]
    return Curve("two pathways, t0", depth, ends, damage_of(final), np.array(known))


def pathway_window(depth: int) -> Curve:
    """The same length of deficit, enough to learn half of the task from the start, at every onset."""
    length = whole_steps(np.array(time_to_learn(depth, START)))
    onsets = whole_steps(np.linspace(0, 2, 41) * time_to_learn(depth, START))
    at_onset = remove(two_pathways(depth), Pathways(), Pathways(), onsets, clean=0, rate=RATE).at_end
    after = descend(at_onset, Pathways((1, 0)), float(length), RATE)
    known = [0.5 - share_of_b(depth, onset, float(length)) for onset in onsets]
    final = descend(after, Pathways(), 25, RATE)
    return Curve("two pathways, onset", depth, onsets, damage_of(final), np.array(known))


def track(path: Path, until: float, *, stop: float = 20.0, rows: int = 40, depth: int = 3) -> fisherkit.Trajectory:
    """The hidden diagonal through time, with the deficit until `until`, its exact Fisher and the closed form beside."""
    deficit, task = hidden_diagonal(SIZE)
    model = nn.Sequential(*(nn.Linear(SIZE, SIZE, bias=False, dtype=torch.float64) for _ in range(depth)))
    weights = small_identity(depth, SIZE)
    path.unlink(missing_ok=True)
    probe = torch.eye(SIZE, dtype=torch.float64)
    with fisherkit.FisherTracker(path, model, probe, loss="squared_error", estimator="exact") as tracker:
        for before, time in pairwise([0.0, *np.linspace(0, stop, rows + 1)]):
            active = before < min(until, time)
            weights = descend(weights, deficit if active else task, time - before, RATE)
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


def report(curve: Curve) -> bool:
    agrees = curve.difference < AGREES
    measured, known = (half_time(curve.times, damage) for damage in (curve.measured, curve.known))
    print(
        f"{curve.title}, depth {curve.depth}: half of the damage at {measured:.2f}, known {known:.2f}; largest damage "
        f"{curve.measured.max():.3f}, known {curve.known.max():.3f}; at the last time {curve.measured[-1]:.3f}, known "
        f"{curve.known[-1]:.3f}; largest difference {curve.difference:.1%}: {'agrees' if agrees else 'DISAGREES'}",
        flush=True,
    )
    return agrees


def report_fisher(tracked: list[fisherkit.Trajectory]) -> bool:
    difference = max(float(np.abs(run.variable("fisher_true") / closed_form_of(run) - 1).max()) for run in tracked)
    agrees = difference < 1e-10
    print(f"tr F of each layer: largest relative difference {difference:.1e}: {'agrees' if agrees else 'DISAGREES'}")
    for run, name in zip(tracked, ("no deficit", "deficit"), strict=True):
        total, error = run.variable("fisher_true").sum(axis=1), run.series["unobserved_error"][-1]
        half = half_time(run.series["epoch"], total)
        print(f"  {name}: tr F ends at {total[-1]:.1f}, half of it at {half:.1f}; error of the diagonal {error:.2g}")
    in_deficit = tracked[1].series["deficit_active"] > 0
    time, total = tracked[1].series["epoch"][in_deficit], tracked[1].variable("fisher_true").sum(axis=1)[in_deficit]
    print(f"  in the deficit: tr F comes to {total[-1]:.1f}, half of it at {half_time(time, total):.1f}")
    return agrees


def draw_curves(axes: Axes, curves: list[Curve], title: str, xlabel: str, ylabel: str) -> None:
    for curve in curves:
        colour = f"C{curve.depth - 1}"
        axes.plot(curve.times, curve.known, color=colour, label=f"depth {curve.depth}, known")
        axes.plot(curve.times, curve.measured, "o", ms=3, color=colour, label=f"depth {curve.depth}, gradient descent")
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.set_title(title)
    axes.legend()


def draw_fisher(axes: Axes, tracked: list[fisherkit.Trajectory], until: float) -> None:
    axes.axvspan(0, until, color="0.9", lw=0)
    for trajectory, line, name in zip(tracked, ("--", "-"), ("no deficit", "deficit"), strict=True):
        for layer, label in ((0, "first and last layer"), (1, "middle layer")):
            values, closed = trajectory.variable("fisher_true")[:, layer], closed_form_of(trajectory)[:, layer]
            time = trajectory.series["epoch"]
            axes.plot(time, values, line, color=f"C{layer + 3}", label=f"{label}, {name}")
            axes.plot(time[::5], closed[::5], "k.", ms=3)
    axes.set(xlabel="time (grey: deficit)", ylabel="tr F of the layer", ylim=(-0.5, 22))  # room for the legend
    axes.set_title("Hidden diagonal, depth 3: exact Fisher (dots: closed form)")
    axes.legend(loc="upper left", ncols=2, fontsize="small")


def draw(path: Path, curves: list[list[Curve]], tracked: list[fisherkit.Trajectory], until: float) -> None:
    removed = "deficit removed at time t0"
    with style():
        figure = new_figure(9.5, 6.4)
        panels = figure.subplots(2, 2)
        draw_curves(panels[0, 0], curves[0], "Hidden diagonal", removed, "final error of the diagonal")
        draw_curves(panels[0, 1], curves[1], "Two pathways", removed, "what b lacks of its half")
        window, onset = "Two pathways, deficit of a fixed length", "onset of the deficit"
        draw_curves(panels[1, 0], curves[2], window, onset, "what b lacks of its half")
        draw_fisher(panels[1, 1], tracked, until)
        fisherkit.plots.save(figure, path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("deep-linear"))
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # matrices this small are slower on several

    curves = [[make(depth) for depth in DEPTHS] for make in (diagonal_removed, pathway_removed, pathway_window)]
    until = 12.0  # when all of the deficit is learnt
    tracked = [track(folder / "control.h5", 0.0), track(folder / "deficit.h5", until)]
    agree = [*(report(curve) for problem in curves for curve in problem), report_fisher(tracked)]
    draw(folder / "deep_linear.png", curves, tracked, until)
    print(folder / "deep_linear.png")
    return 0 if all(agree) else 1


if __name__ == "__main__":
    sys.exit(main())
