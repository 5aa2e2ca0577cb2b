"""Many runs: each a process of its own, on this machine or a cluster, retried, watched, resumed."""

from fisherkit.studies.execution.driver import execute
from fisherkit.studies.execution.executors import ExecutorChoice, Workplace, open_workplace
from fisherkit.studies.execution.observer import ExecutionObserver, Snapshot, UnitProgress
from fisherkit.studies.execution.process import run_unit, state_on_disk
from fisherkit.studies.execution.slots import ClusterSlots, LocalSlots, Slots, local_places
from fisherkit.studies.execution.unit import Attempt, Ending, Execution, Origin, Slot, Unit, UnitOutcome

__all__ = [
    "Attempt",
    "ClusterSlots",
    "Ending",
    "Execution",
    "ExecutionObserver",
    "ExecutorChoice",
    "LocalSlots",
    "Origin",
    "Slot",
    "Slots",
    "Snapshot",
    "Unit",
    "UnitOutcome",
    "UnitProgress",
    "Workplace",
    "execute",
    "local_places",
    "open_workplace",
    "run_unit",
    "state_on_disk",
]
