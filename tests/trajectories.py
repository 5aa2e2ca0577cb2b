"""Trajectories for tests: made up, but shaped like a run under a deficit."""

import numpy as np

from fisherkit.recording import Trajectory

WINDOW = {"name": "blur", "text": "blur", "start": 0, "stop": 12}


def resnet_layers(blocks: int = 8) -> list[str]:
    """Names like those of a residual net: stem, then conv and bn of each block, then the classifier."""
    names = ["conv1", "bn1"]
    for block in range(blocks):
        stage, index = divmod(block, 2)
        names += [f"layer{stage + 1}.{index}.conv1", f"layer{stage + 1}.{index}.bn1"]
    return [*names, "avgpool.scale", "fc"]


def made_up(rows: int = 41, layers: int = 20, *, seed: int = 0, peak: float = 9.0, windows=(WINDOW,)) -> Trajectory:
    """A trajectory whose trace rises to an early peak and falls, later layers earlier and stronger."""
    rng = np.random.default_rng(seed)
    epoch, depth = np.arange(rows)[:, None].astype(float), np.linspace(0, 1, layers)
    height = 10 ** (-1.5 + 3 * depth + 0.3 * np.sin(7 * depth))
    shape = (0.05 + epoch / peak) * np.exp(1 - epoch / (peak * (1.3 - 0.5 * depth)))
    trace = height * shape * np.exp(0.08 * rng.normal(size=(rows, layers)))
    names = resnet_layers((layers - 4 + 1) // 2)
    names = [*names[: layers - 1], "fc"]
    error = 0.05 * trace
    done = np.arange(rows) / max(rows - 1, 1)
    active = np.zeros(rows, bool)
    for window in windows:
        active |= (np.arange(rows) > window["start"]) & (np.arange(rows) <= (window["stop"] or rows))
    return Trajectory(
        layers=tuple(names),
        parameters=np.round(10 ** (2 + 3 * depth)).astype(np.int64),
        variables={
            "fisher_true": trace,
            "fisher_true_stderr": error,
            "fisher_empirical": trace * 1.1,
            "weight_norm": 1 + depth + 0.1 * epoch,
        },
        series={
            "epoch": np.arange(rows, dtype=float),
            "step": np.arange(rows) * 79,
            "deficit_active": active,
            "train_loss": 2.3 * np.exp(-2 * done),
            "train_accuracy": 0.1 + 0.85 * (1 - np.exp(-3 * done)),
            "test_loss": 2.3 * np.exp(-1.5 * done),
            "test_accuracy": 0.1 + 0.7 * (1 - np.exp(-3 * done)),
            "elapsed_s": np.arange(rows) * 3.1,
            "fisher_true_total": trace.sum(axis=1),
            "fisher_true_total_stderr": 0.03 * trace.sum(axis=1),
        },
        attributes={
            "configuration": {"model": "resnet18", "data": "fashion-mini", "epochs": rows - 1, "seed": seed},
            "deficit_windows": list(windows),
            "engines": dict.fromkeys(names, "ghost"),
            "estimator": "propagated",
            "batchnorm": "eval",
            "probes": ["train"],
            "seed": seed,
            "finished": True,
            "schedule": [{"epoch": e, "deficits": ["blur"] if e < 12 else []} for e in range(rows - 1)],
        },
    )
