"""Studies for tests: made-up records whose numbers are known, of every protocol."""

import dataclasses

import numpy as np
from trajectories import made_up

from fisherkit.recording import ArmRecord, RunRecord, StudyRecord

NONE = float("nan")
RULE = {"final_rule": "mean of the last 5 epochs", "final_epochs": 5, "final_statistic": "mean"}


def trajectory(epochs: int, *, seed=0, until=0, final=0.8, height=1.0, layers=20):
    """A run of so many epochs under blur until one of them, ending at a test accuracy."""
    windows = [{"name": "blur", "text": "blur", "start": 0, "stop": until}] if until else []
    run = made_up(epochs + 1, layers, seed=seed, windows=windows)
    variables = {name: array * (height if name.startswith("fisher") else 1) for name, array in run.variables.items()}
    total = {"fisher_true_total": variables["fisher_true"].sum(axis=1)}
    test = run.series["test_accuracy"] * (final / run.series["test_accuracy"][-1])
    return dataclasses.replace(run, variables=variables, series={**run.series, **total, "test_accuracy": test})


def run(
    number: int, accuracy: float | None = 0.8, *, state="finished", epochs=20, until=0, message="", train=0.99, **more
) -> RunRecord:
    """A run with that final test accuracy; `number` makes its identity and its noise."""
    options = {"model": "resnet18", "data": "cifar10", "seed": number % 10}
    identity = f"{number:016x}"
    if state not in ("finished", "exploded"):
        return RunRecord(identity, options, state, message)
    rows = trajectory(epochs, seed=number, until=until, final=accuracy or 0.3, **more)
    if state == "exploded":
        return RunRecord(identity, options, state, message, rows.rows(0, 6))
    final = {"test_accuracy": accuracy, "train_accuracy": train, "test_loss": 1 - accuracy, "train_loss": 0.01}
    return RunRecord(identity, options, state, message, rows, final)


def arm(number: int, label: str, group: str, value: float, accuracy: float, *, control=False, seeds=3, **more):
    """An arm whose seeds have the accuracy - 0.01, the accuracy, and + 0.01, in an order that depends on the number."""
    offsets = np.roll(0.01 * (np.arange(seeds) - (seeds - 1) / 2), number)
    runs = {seed: run(number * 10 + seed, accuracy + offset, **more) for seed, offset in enumerate(offsets)}
    return ArmRecord(label, group, value, control, runs)


def removal(*, deficits=("blur", "flip"), times=(2, 4, 6, 8, 10), seeds=3, clean=16) -> StudyRecord:
    """Blur costs 0.02 for each epoch it stays, other deficits nothing."""
    arms = [arm(0, "control", "control", 0.0, 0.8, control=True, seeds=seeds, epochs=clean)]
    for k, deficit in enumerate(deficits):
        for t0 in times:
            loss = 0.02 * t0 if deficit == "blur" else 0.0
            number = 1 + k * len(times) + times.index(t0)
            arms.append(
                arm(
                    number, f"{deficit} until epoch {t0}", deficit, float(t0), 0.8 - loss,
                    seeds=seeds, epochs=t0 + clean, until=t0, height=1 + t0 / 5,
                )
            )  # fmt: skip
    return _study("removal", "deficit removed at epoch", arms, deficits=list(deficits))


def window(*, onsets=(0, 2, 4, 6, 8, 12), seeds=3) -> StudyRecord:
    """The loss is largest at onset 2."""
    arms = [arm(0, "control", "control", NONE, 0.8, control=True, seeds=seeds)]
    for k, onset in enumerate(onsets):
        loss = 0.12 * np.exp(-abs(onset - 2) / 4)
        arms.append(arm(1 + k, f"blur from epoch {onset}", "blur", float(onset), 0.8 - loss, seeds=seeds))
    return _study("window", "onset of the deficit (epoch)", arms, length_run=4)


def regularization() -> StudyRecord:
    """Three sweeps between two controls."""
    arms = [
        arm(0, "weight decay always on", "always on", NONE, 0.8, control=True),
        arm(1, "weight decay never on", "never on", NONE, 0.7, control=True),
    ]
    for k, (group, sign) in enumerate({"on until t": 1, "on from t": -1, "on for 5 epochs from t": 0}.items()):
        for j, t in enumerate((5, 10, 15)):
            accuracy = 0.75 + sign * 0.003 * (t - 10)
            arms.append(arm(10 + 3 * k + j, f"weight decay {group} {t}", group, float(t), accuracy))
    return _study("regularization", "epoch t (weight decay)", arms)


def warm_start() -> StudyRecord:
    """A fresh start, a warm one, and shrink-perturb between; with gradient norms."""
    arms = [
        arm(0, "fresh start", "fresh start", NONE, 0.56, control=True),
        arm(1, "warm start", "warm start", NONE, 0.51),
    ]
    for k, scale in enumerate((0.2, 0.4, 0.6, 0.8)):
        arms.append(arm(2 + k, f"shrink-perturb {scale}", "shrink-perturb", scale, 0.56 - 0.05 * scale))
    return _study("warm-start", "lambda", [_with_norms(each) for each in arms])


def early_fisher() -> StudyRecord:
    """The larger the rate, the smaller the trace and the better the accuracy."""
    arms = []
    for k, group in enumerate(("no penalty", "penalty 0.1:10")):
        for j, rate in enumerate((0.001, 0.003, 0.01, 0.03, 0.1)):
            arms.append(
                arm(
                    10 * k + j, f"lr {rate:g}, {group}", group, rate, 0.6 + 0.04 * j + 0.05 * k,
                    control=k == 0 and j == 4, height=10.0 ** (2 - j / 2 - k),
                )
            )  # fmt: skip
    return _study("early-fisher", "learning rate", arms)


def custom(count: int = 12) -> StudyRecord:
    """Arms without a place on an axis."""
    arms = [
        arm(k, f"width={8 * (k + 1)}", f"batch {k % 3}", NONE, 0.5 + 0.02 * k, control=k == 0) for k in range(count)
    ]
    return _study("custom", "arm", arms)


PROTOCOLS = {
    "removal": removal,
    "window": window,
    "regularization": regularization,
    "warm-start": warm_start,
    "early-fisher": early_fisher,
    "custom": custom,
}


def _study(protocol: str, axis: str, arms, **options) -> StudyRecord:
    attributes = {**RULE, "command": f"fisherkit study {protocol}"}
    return StudyRecord(protocol, axis, tuple(arms), {"seeds": 3, "time_scale": 1.0, **options}, attributes)


def _with_norms(record: ArmRecord) -> ArmRecord:
    def more(run: RunRecord) -> RunRecord:
        epoch = run.trajectory.series["epoch"]
        norms = {"gradient_norm_old": 0.1 + 0 * epoch, "gradient_norm_new": 1 / (1 + epoch)}
        series = {**run.trajectory.series, **norms}
        return dataclasses.replace(run, trajectory=dataclasses.replace(run.trajectory, series=series))

    return dataclasses.replace(record, runs={seed: more(run) for seed, run in record.runs.items()})
