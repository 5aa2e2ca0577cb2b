"""The numbers of each arm of a study: means over its seeds with intervals, verdicts, and how its runs ended."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fisherkit.analysis import concentration, phases
from fisherkit.analysis.arm_phases import agreed, together
from fisherkit.analysis.comparison import FITTED
from fisherkit.analysis.intervals import Interval, known_interval
from fisherkit.recording import ArmRecord, StudyRecord, Trajectory
from fisherkit.recording.study import STATES, RunState

LEVEL = 0.95


@dataclass(frozen=True)
class ArmSummary:
    """One arm: accuracies of its finished runs, what the trace of all its runs did.

    `loss` is the control's final test accuracy less the arm's, seed by seed; `states` counts its runs; `verdicts`
    counts what the total Fisher trace of each run did; `last_quarter` is the share of the trace that the last quarter
    of the layers holds in the end.
    """

    arm: ArmRecord
    compared_with: str | None  # label of the control
    states: Mapping[str, int]
    test: Interval
    train: Interval
    loss: Interval
    peak_epoch: Interval
    forgotten: Interval
    last_quarter: Interval
    verdicts: Mapping[str, int]

    @property
    def planned(self) -> int:
        """Runs that the arm consists of."""
        return len(self.arm.runs)

    @property
    def done(self) -> int:
        """Runs that are finished."""
        return self.states["finished"]

    @property
    def undertrained(self) -> bool:
        """Whether its networks do not fit their training images, on the mean over seeds."""
        return bool(self.train.value < FITTED)  # NaN is not below

    @property
    def verdict(self) -> str:
        """What the trace did: one text if all runs agree, else each with its count; empty without a trace."""
        return agreed(self.verdicts)


def summarise(record: StudyRecord) -> tuple[ArmSummary, ...]:
    """A summary of each arm, in order."""
    return tuple(_summary(record, arm) for arm in record.arms)


def _summary(record: StudyRecord, arm: ArmRecord) -> ArmSummary:
    states = Counter(run.state for run in arm.runs.values())
    control = record.control_of(arm)
    traced = _traced(arm, "finished", "exploded")
    quarters = [_last(concentration(run).last_quarter) for run in _traced(arm, "finished")]
    found = together([phases(run) for run in traced], level=LEVEL)
    return ArmSummary(
        arm=arm,
        compared_with=None if control is None else control.label,
        states={state: states[state] for state in STATES},
        test=known_interval(arm.finals("test_accuracy"), level=LEVEL),
        train=known_interval(arm.finals("train_accuracy"), level=LEVEL),
        loss=known_interval(record.losses(arm), level=LEVEL),
        peak_epoch=found.peak_epoch,
        forgotten=found.forgotten,
        last_quarter=known_interval(quarters, level=LEVEL),
        verdicts=found.verdicts,
    )


def _traced(arm: ArmRecord, *states: RunState) -> list[Trajectory]:
    """The trajectories with a Fisher trace of runs in these states."""
    runs = (run.trajectory for run in arm.with_state(*states))
    return [run for run in runs if run is not None and "fisher_true" in run.variables]


def _last(values: np.ndarray) -> float:
    """The last one that was measured."""
    finite = values[np.isfinite(values)]
    return float(finite[-1]) if len(finite) else float("nan")
