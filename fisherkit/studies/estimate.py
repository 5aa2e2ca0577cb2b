"""What a run will take, from one epoch of it that is trained and timed."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from fisherkit.studies.conduct import StudyPlan
from fisherkit.studies.execution import ExecutorChoice, LocalSlots, open_workplace
from fisherkit.studies.run import track
from fisherkit.studies.specification import RunSpecification


@dataclass(frozen=True)
class EpochCost:
    """Seconds of an epoch, with its test and its measurement; bytes of a checkpoint and of an epoch's row."""

    seconds: float
    checkpoint_bytes: int
    row_bytes: int


def time_epoch(specification: RunSpecification) -> EpochCost:
    """Train and measure the first epoch of a run on all its images, in a folder that is removed.

    It has the deficits of the run's first epoch. The first epoch of a process is somewhat slower than later ones.
    """
    short = specification.model_copy(update={"epochs": 1, "fraction": (), "event": (), "stop_accuracy": None})
    with tempfile.TemporaryDirectory(prefix="fisherkit-") as folder:
        outcome = track(short, Path(folder))
        if outcome.signal is not None:
            raise KeyboardInterrupt
        elapsed = outcome.trajectory.series["elapsed_s"]
        sizes = [path.stat().st_size for path in Path(folder).glob("ckpt-*.pt")]
        rows = sum(array.nbytes for array in outcome.trajectory.variables.values()) // len(outcome.trajectory)
    return EpochCost(float(elapsed[-1] - elapsed[0]), max(sizes), rows)


def disk_bytes(plan: StudyPlan, cost: EpochCost) -> tuple[int, int]:
    """What the runs that are left will have written: at most while the study runs, and when it is done.

    Of each run two checkpoints, which hold its rows too, and run.h5; while the study runs also those that others
    branch off.
    """
    rows = sum(3 * cost.row_bytes * run.specification.epochs for run in plan.left)
    own = 2 * cost.checkpoint_bytes * len(plan.left) + rows
    kept = cost.checkpoint_bytes * sum(len(run.keep) for run in plan.left)
    return own + kept, own


def slots_here(plan: StudyPlan, executor: ExecutorChoice) -> int | None:
    """How many runs run at a time; None for a cluster, which is not asked."""
    if executor.address is not None:
        return None
    first = plan.left[0].specification
    with open_workplace(ExecutorChoice("local", executor.slots), device=first.device, threads=first.threads) as place:
        return place.slots.count if isinstance(place.slots, LocalSlots) else None
