"""summary.csv: one row an arm."""

import csv
import io
from collections.abc import Sequence

import numpy as np

from fisherkit.analysis.intervals import Interval
from fisherkit.recording.study import STATES
from fisherkit.studies.results.arm_summary import ArmSummary

INTERVALS = ("test_accuracy", "train_accuracy", "loss", "peak_epoch", "forgotten", "last_quarter")
COLUMNS = (
    "arm",
    "group",
    "value",
    "control",
    "compared_with",
    "seeds_planned",
    *STATES,
    *(f"{name}{end}" for name in INTERVALS for end in ("", "_low", "_high", "_n")),
    "verdict",
    "undertrained",
)


def csv_bytes(arms: Sequence[ArmSummary]) -> bytes:
    """The table as UTF-8; numbers to 6 digits, empty where there is none, 95 % intervals over seeds."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(_row(arm) for arm in arms)
    return text.getvalue().encode()


def _row(summary: ArmSummary) -> list[str]:
    arm = summary.arm
    found = (summary.test, summary.train, summary.loss, summary.peak_epoch, summary.forgotten, summary.last_quarter)
    return [
        arm.label,
        arm.group,
        _number(arm.value),
        _flag(arm.control),
        summary.compared_with or "",
        str(summary.planned),
        *(str(summary.states[state]) for state in STATES),
        *(cell for interval in found for cell in _cells(interval)),
        summary.verdict,
        _flag(summary.undertrained),
    ]


def _cells(interval: Interval) -> list[str]:
    return [_number(interval.value), _number(interval.low), _number(interval.high), str(interval.n)]


def _number(value: float) -> str:
    return f"{value:.6g}" if np.isfinite(value) else ""


def _flag(holds: bool) -> str:
    return "yes" if holds else "no"
