"""An arm against its control, and the end of a run as one number."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from fisherkit.analysis.arms import Arm
from fisherkit.analysis.curve import Curve, curve
from fisherkit.analysis.intervals import mean_interval
from fisherkit.recording import Trajectory

Rows = Float64[np.ndarray, " row"]
STATISTICS = ("mean", "median")
FITTED = 0.95  # train accuracy below which an arm shows nothing about forgetting


def final_value(trajectory: Trajectory, name: str, *, last: float = 1, statistic: str = "mean") -> float:
    """The mean or median of a series over the last epochs in which it was measured; NaN where it never was.

    Counted are the rows whose epoch is above e - last, where e is that of the last finite value.

    Raises:
        ValueError: last is not above zero, the statistic is unknown, or there is no such series.
    """
    if not last > 0:
        raise ValueError(f"last must be a number of epochs above 0; got {last!r}.")
    if statistic not in STATISTICS:
        raise ValueError(f"statistic must be mean or median; got {statistic!r}.")
    if name not in trajectory.series:
        raise ValueError(f"name must be one of {', '.join(sorted(trajectory.series))}; got {name!r}.")
    values, epoch = trajectory.series[name], trajectory.series["epoch"]
    finite = np.isfinite(values)
    if not finite.any():
        return float("nan")
    chosen = values[finite & (epoch > epoch[finite][-1] - last)]
    return float(np.mean(chosen) if statistic == "mean" else np.median(chosen))


@dataclass(frozen=True, eq=False)
class Ratio:
    """An arm's value over its control's through time: geometric mean over n paired seeds with its interval."""

    epoch: Rows
    ratio: Rows
    low: Rows
    high: Rows
    n: int


def ratio_to_control(
    arm: Arm, control: Arm, name: str = "fisher_true", *, layer: str | None = None, level: float = 0.95
) -> Ratio:
    """How many times the control's value the arm has, at each epoch that all paired runs have.

        ratio(t) = exp( mean_s [ log v_arm,s(t) - log v_control,s(t) ] ),   s: seeds that both have

    The interval is that of the mean logarithm (`mean_interval`); NaN for one seed. Runs that exploded do not count.
    Both are taken at the same epoch, so that the networks have seen as many images.

    Raises:
        ValueError: no seed is common to both, or there is no such variable, series or layer.
    """
    seeds = sorted(arm.whole.keys() & control.whole.keys())
    if not seeds:
        raise ValueError(f"control must have a seed in common with {arm.label!r}; got {list(control.whole)}.")
    pairs = [[curve(each.whole[s], name, layer=layer) for each in (arm, control)] for s in seeds]
    common = sorted(set.intersection(*(set(each.epoch[each.value > 0].tolist()) for pair in pairs for each in pair)))
    logs = np.array([_log_at(a, common) - _log_at(b, common) for a, b in pairs])  # [seed, row]
    bounds = [mean_interval(column.tolist(), level=level) for column in logs.T]
    mean, low, high = (np.exp([getattr(each, end) for each in bounds]) for end in ("value", "low", "high"))
    return Ratio(np.array(common), mean, low, high, len(seeds))


def _log_at(found: Curve, epochs: Sequence[float]) -> np.ndarray:
    """The logarithms in those rows."""
    return np.asarray(found.log[np.isin(found.epoch, epochs)])


def undertrained(arm: Arm, *, least: float = FITTED, last: float = 5) -> bool:
    """Whether its networks do not fit their training images: final train accuracy below `least`, mean over seeds.

    Such an arm cannot show forgetting, and may lose test accuracy only because it has learnt less. Not known, so False,
    where no run has a train accuracy.
    """
    runs = [run for run in arm.whole.values() if "train_accuracy" in run.series]
    every = [final_value(run, "train_accuracy", last=last) for run in runs]
    known = [value for value in every if np.isfinite(value)]
    return bool(known) and float(np.mean(known)) < least
