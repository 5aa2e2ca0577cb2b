"""Trajectories for the tests of analysis: curves whose phases are known."""

import numpy as np

from fisherkit.analysis import Arm
from fisherkit.recording import Trajectory

NAN = float("nan")


def run(values, *, epochs=None, stderr=None, layers=("a",), series=None, attributes=None, seed=0) -> Trajectory:
    """A run whose `fisher_true` is `values`, [row] or [row, layer]; epochs 1, 2, ... unless given."""
    table = np.asarray(values, float)
    table = table[:, None] if table.ndim == 1 else table
    count = len(table)
    errors = {} if stderr is None else {"fisher_true_stderr": np.broadcast_to(stderr, table.shape)}
    return Trajectory(
        layers=tuple(layers),
        parameters=np.ones(len(layers), int),
        variables={"fisher_true": table, **errors},
        series={
            "epoch": np.arange(1.0, count + 1) if epochs is None else np.asarray(epochs, float),
            "step": np.arange(count),
            **(series or {}),
        },
        attributes={"configuration": {"model": "mlp", "seed": seed}, **(attributes or {})},
    )


def pieces(epoch, *corners):
    """The exponential of straight lines through corners (epoch, log)."""
    places, logs = zip(*corners, strict=True)
    return np.exp(np.interp(epoch, places, logs))


def ending(accuracies, *, train=1.0, **more) -> Trajectory:
    """A run with these test accuracies, an epoch each."""
    series = {"test_accuracy": np.asarray(accuracies, float), "train_accuracy": np.full(len(accuracies), train)}
    return run(np.ones(len(accuracies)), series=series, **more)


def arm(label, value, accuracies, *, control=False, **more) -> Arm:
    """An arm with a final test accuracy for each seed; None for a run that exploded."""
    runs = [
        ending([0.1, 0.5], attributes={"exploded": "loss inf"}) if a is None else ending([a, a], **more)
        for a in accuracies
    ]
    return Arm(label, "blur", value, control, tuple(range(len(runs))), tuple(runs))
