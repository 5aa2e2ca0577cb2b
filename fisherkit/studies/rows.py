"""The numbers of a run's rows, beside what is measured."""

import math
from typing import Any

from fisherkit.conditions import EpochConditions
from fisherkit.training import EpochReport


def row_numbers(
    now: EpochConditions, *, lr: float, elapsed_s: float, report: EpochReport | None = None
) -> dict[str, float]:
    """Those of the epoch that ended, or of the moment within one."""
    numbers: dict[str, float] = {
        "deficit_active": int(bool(now.deficits)),
        "lr": lr,
        "weight_decay": now.weight_decay,
        "elapsed_s": elapsed_s,
    }
    if report is None:
        return numbers
    names = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
    return numbers | {name: getattr(report, name) for name in names} | _optional_numbers(report)


def _optional_numbers(report: EpochReport) -> dict[str, float]:
    """What only some trainings measure; a row without it is NaN in the file."""
    penalty = report.fisher_penalty
    numbers = {} if penalty is None or not math.isfinite(penalty) else {"fisher_penalty": penalty}
    if report.gradient_norms is not None:
        numbers |= {f"gradient_norm_{name}": norm for name, norm in report.gradient_norms._asdict().items()}
    return numbers


def epoch_record(report: EpochReport) -> dict[str, Any]:
    """The realised schedule of one epoch; `next_epoch` where the phase ended early."""
    record = {**report.conditions.record(), "lr": report.lr, "images": report.images, "step": report.step}
    return record | ({"next_epoch": report.next_epoch} if report.skipped_epochs else {})
