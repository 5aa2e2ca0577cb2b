"""Who watches the runs of a study, and what there is to see."""

from collections.abc import Sequence
from dataclasses import dataclass

from fisherkit.studies.execution.unit import Origin, Slot, Unit, UnitOutcome

WAITING, QUEUED, RUNNING = "waiting", "queued", "running"


@dataclass(frozen=True)
class UnitProgress:
    """How far a run is: `state` is waiting, queued (on a cluster), running, or the value of its Ending.

    `done` are the epochs behind it, trained by itself or by the run that it branched off; `to_train` those that it has
    still to train itself; `where` it runs, while it does.
    """

    unit: Unit
    state: str
    done: int
    to_train: int
    where: str = ""


@dataclass(frozen=True)
class Snapshot:
    """How far all runs are; `left_s` is an estimate, None until an epoch was trained."""

    units: tuple[UnitProgress, ...]
    left_s: float | None

    def count(self, *states: str) -> int:
        """The runs in these states."""
        return sum(unit.state in states for unit in self.units)

    @property
    def done(self) -> int:
        """Epochs behind all runs."""
        return sum(unit.done for unit in self.units)

    @property
    def total(self) -> int:
        """Epochs of all runs."""
        return sum(unit.unit.epochs for unit in self.units)


class ExecutionObserver:
    """Who watches; this one says nothing, the command line's prints."""

    def began(self, units: Sequence[Unit], done: Sequence[UnitOutcome]) -> None:
        """Before the first run; `done` are those that were done before."""

    def started(self, unit: Unit, *, origin: Origin | None, slot: Slot, attempt: int) -> None:
        """A run was submitted; `attempt` counts from 1."""

    def retried(self, unit: Unit, *, reason: str, attempts_left: int) -> None:
        """An attempt failed in passing; there will be another."""

    def ended(self, outcome: UnitOutcome) -> None:
        """There will be no other attempt."""

    def looked(self, snapshot: Snapshot) -> None:
        """About every second."""

    def stopping(self, signal: int, running: int) -> None:
        """A signal came; so many runs are asked to stop, and waited for."""
