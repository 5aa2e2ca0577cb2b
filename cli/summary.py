"""The end of a run in a few lines."""

import math

from fisherkit.analysis import final_row, peak, shares
from fisherkit.recording import Trajectory

LARGEST = 5  # layers shown


def run_summary(trajectory: Trajectory) -> str:
    """Accuracy, the peak of the Fisher trace and what was forgotten since, and where the trace lies."""
    exploded = trajectory.attributes.get("exploded")
    lines = [f"exploded {exploded}"] if exploded else []
    accuracy, train = final_row(trajectory, "test_accuracy"), final_row(trajectory, "train_accuracy")
    if not math.isnan(accuracy):
        lines.append(f"accuracy test {accuracy:.1%}, train {train:.1%}")
    top = peak(trajectory)
    if top is not None:
        lines.append(
            f"Fisher   total peaked at {top.value:.4g} nats² in epoch {top.epoch:g}; "
            f"{top.last_value:.4g} in epoch {top.last_epoch:g}{_after(trajectory, top.last_epoch)} "
            f"({top.forgotten:.0%} below the peak)"
        )
        lines.append(f"         share by layer at the end: {_largest(trajectory)}")
    return "\n".join(lines)


def _largest(trajectory: Trajectory) -> str:
    share = shares(trajectory)
    if math.isnan(share[0]):
        return "none, the total is 0"
    largest = sorted(range(len(share)), key=lambda k: -share[k])[:LARGEST]
    return ", ".join(f"{trajectory.layers[k]} {share[k]:.0%}" for k in largest)


def _after(trajectory: Trajectory, epoch: float) -> str:
    """A word on later epochs, where there are any."""
    return ", the last measured" if trajectory.series["epoch"][-1] > epoch else ""
