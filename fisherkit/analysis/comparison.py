"""An arm against its control, and the end of a run as one number."""

from typing import Literal, get_args

import numpy as np

from fisherkit.recording import Trajectory

Statistic = Literal["mean", "median"]


def final_value(trajectory: Trajectory, name: str, *, last: float = 1, statistic: Statistic = "mean") -> float:
    """The mean or median of a series over the last epochs in which it was measured; NaN where it never was.

    Counted are the rows whose epoch is above e - last, where e is that of the last finite value.

    Raises:
        ValueError: last is not above zero, the statistic is unknown, or there is no such series.
    """
    if not last > 0:
        raise ValueError(f"last must be a number of epochs above 0; got {last!r}.")
    if statistic not in get_args(Statistic):
        raise ValueError(f"statistic must be mean or median; got {statistic!r}.")
    if name not in trajectory.series:
        raise ValueError(f"name must be one of {', '.join(sorted(trajectory.series))}; got {name!r}.")
    values, epoch = trajectory.series[name], trajectory.series["epoch"]
    finite = np.isfinite(values)
    if not finite.any():
        return float("nan")
    chosen = values[finite & (epoch > epoch[finite][-1] - last)]
    return float(np.mean(chosen) if statistic == "mean" else np.median(chosen))
