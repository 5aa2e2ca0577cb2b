"""Running all units: the loop of the driver."""

import os
import socket
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from fisherkit.storage import lock
from fisherkit.studies.execution.lease import HeldLease, hold_lease
from fisherkit.studies.execution.observer import QUEUED, RUNNING, WAITING, ExecutionObserver, Snapshot, UnitProgress
from fisherkit.studies.execution.process import run_unit, state_on_disk
from fisherkit.studies.execution.progress import Pace, RunLog, Started, time_left
from fisherkit.studies.execution.schedule import by_urgency, check_units, startable
from fisherkit.studies.execution.slots import Slots
from fisherkit.studies.execution.unit import Attempt, Ending, Execution, Origin, Slot, Unit, UnitOutcome
from fisherkit.studies.signals import StopRequest, stop_on_signals
from fisherkit.training import kept_epochs

POLL_S = 1.0


def execute(
    units: Sequence[Unit],
    executor: Executor,
    *,
    slots: Slots,
    folder: Path,
    retries: int = 2,
    observer: ExecutionObserver | None = None,
    command: Sequence[str] | None = None,
) -> Execution:
    """Run all units, each in a process of its own, and wait for them; what is done already is left alone.

    A run that was killed, whose worker died, or whose folder stays in use is tried again up to `retries` times, and
    goes on from its last checkpoint. Any other failure is final and stops no other run. On SIGINT or SIGTERM the runs
    are asked to stop, which they do after a checkpoint; the same call goes on from there. `folder` is that of the whole
    study: one driver at a time holds it.

    Raises:
        RunRefused: another driver has the folder.
        ConnectionError: the cluster is lost; the runs there end after a checkpoint, and the same call goes on.
        ValueError: the units cannot all run (see `check_units`), or retries is negative.
    """
    check_units(units)
    if retries < 0:
        raise ValueError(f"retries must be at least 0; got {retries}.")
    with lock(folder), hold_lease(folder) as lease, stop_on_signals() as request:
        observer = observer or ExecutionObserver()
        return _Driver(units, executor, slots, lease, observer, retries=retries, command=command).go(request)


@dataclass
class _Running:
    """A submitted unit."""

    unit: Unit
    slot: Slot
    started: Started

    def where(self) -> str:
        """The slot, and the machine where it is another one than the driver's."""
        host = self.started.host
        return self.slot.name if host in (None, socket.gethostname()) else f"{self.slot.name}, {host}"


@dataclass
class _Driver:
    units: Sequence[Unit]
    executor: Executor
    slots: Slots
    lease: HeldLease
    observer: ExecutionObserver
    retries: int
    command: Sequence[str] | None
    outcomes: dict[str, UnitOutcome] = field(default_factory=dict)
    waiting: list[Unit] = field(default_factory=list)
    running: dict["Future[Attempt]", _Running] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)
    logs: dict[str, RunLog] = field(default_factory=dict)
    pace: Pace = field(default_factory=Pace)

    def go(self, request: StopRequest) -> Execution:
        self.logs = {unit.identity: RunLog(Path(unit.folder)) for unit in self.units}
        self._set_apart_what_is_done()
        try:
            while (self.waiting or self.running) and request.signal is None:
                self._start()
                assert self.running, f"nothing runs, and nothing can start: {self.waiting}"
                self._wait()
            if request.signal is not None:
                self.observer.stopping(request.signal, len(self.running))
        finally:
            self._stop()
        self.observer.looked(self.snapshot())
        in_order = {unit.identity: self.outcomes[unit.identity] for unit in self.units}
        return Execution(in_order, request.signal)

    def _set_apart_what_is_done(self) -> None:
        for unit in self.units:
            found = state_on_disk(unit)
            if found is not None:
                self.outcomes[unit.identity] = UnitOutcome(unit, found)
        self.waiting = list(by_urgency([unit for unit in self.units if unit.identity not in self.outcomes]))
        self.observer.began(self.units, tuple(self.outcomes.values()))

    def _start(self) -> None:
        """Submit what can start, as far as there are slots."""
        coming = {unit.identity for unit in self.waiting} | {run.unit.identity for run in self.running.values()}
        kept = cache(kept_epochs)  # each folder is read once in a round
        for unit, origin in startable(self.waiting, coming=coming, kept=kept, begun=_has_checkpoint):
            slot = self.slots.take()
            if slot is None:
                return
            self.waiting.remove(unit)
            self._submit(unit, origin, slot)

    def _submit(self, unit: Unit, origin: Origin | None, slot: Slot) -> None:
        log = self.logs[unit.identity]
        started = Started(log, origin.epoch if origin else log.epoch())
        attempt = self.attempts[unit.identity] = self.attempts.get(unit.identity, 0) + 1
        self.observer.started(unit, origin=origin, slot=slot, attempt=attempt)
        future = self.executor.submit(
            run_unit, unit, origin, slot, lease=self.lease.lease, command=self.command, directory=os.getcwd()
        )
        self.running[future] = _Running(unit, slot, started)

    def _wait(self) -> None:
        """Until a run ends, at most POLL_S: then it is time to look for checkpoints to branch off."""
        self.lease.touch()
        ended, _ = wait(self.running, timeout=POLL_S, return_when=FIRST_COMPLETED)
        for future in ended:
            self._end(future)
        self.observer.looked(self.snapshot())
        lost = self.slots.lost()
        if lost is not None:
            raise ConnectionError(lost)

    def _end(self, future: "Future[Attempt]", *, stopping: bool = False) -> None:
        run = self.running.pop(future)
        self.slots.give_back(run.slot)
        run.started.look()
        run.started.add_to(self.pace)
        attempt, count = _result(future), self.attempts[run.unit.identity]
        if attempt.ending.passing and stopping:
            attempt = Attempt(Ending.NOT_STARTED if future.cancelled() else Ending.STOPPED)
        elif attempt.ending.passing and count <= self.retries:
            self.observer.retried(run.unit, reason=attempt.text, attempts_left=self.retries + 1 - count)
            self.waiting.insert(0, run.unit)
            return
        elif attempt.ending.passing:
            text = f"{attempt.text or attempt.ending.value} ({count} attempts)"
            attempt = Attempt(Ending.FAILED, text, attempt.log)
        outcome = UnitOutcome(run.unit, attempt.ending, count, attempt.text, attempt.log)
        self.outcomes[run.unit.identity] = outcome
        self.observer.ended(outcome)

    def _stop(self) -> None:
        """Ask every run to stop, and wait for those that have begun: they write a checkpoint."""
        self.lease.end()
        for future, run in list(self.running.items()):
            # on a cluster, what has not begun may wait for a worker for hours; where it begins yet, it sees the lease
            if not run.started.look():
                future.cancel()
        while self.running and self.slots.lost() is None:
            for future in wait(self.running, timeout=POLL_S, return_when=FIRST_COMPLETED).done:
                self._end(future, stopping=True)
        for run in self.running.values():  # of a lost cluster: they see the lease, or the end of their worker
            self.outcomes[run.unit.identity] = UnitOutcome(
                run.unit, Ending.STOPPED, self.attempts[run.unit.identity], str(self.slots.lost())
            )
        for unit in self.waiting:
            self.outcomes[unit.identity] = UnitOutcome(unit, Ending.NOT_STARTED, self.attempts.get(unit.identity, 0))

    def snapshot(self) -> Snapshot:
        """How far all are."""
        pace = Pace(self.pace.epochs, self.pace.seconds)
        states: dict[str, str] = {}
        for run in self.running.values():
            states[run.unit.identity] = RUNNING if run.started.look() else QUEUED
            run.started.add_to(pace)
        found = tuple(self._progress(unit, states.get(unit.identity, WAITING)) for unit in self.units)
        rest = [unit.to_train for unit in found if unit.to_train]
        at_once = sum(state == RUNNING for state in states.values())
        left = None if pace.epoch_s is None else time_left(rest, epoch_s=pace.epoch_s, at_once=at_once)
        return Snapshot(found, left)

    def _progress(self, unit: Unit, state: str) -> UnitProgress:
        outcome = self.outcomes.get(unit.identity)
        if outcome is not None:
            done = unit.epochs if outcome.ending is Ending.FINISHED else self.logs[unit.identity].epoch()
            return UnitProgress(unit, outcome.ending.value, done, 0)
        for run in self.running.values():
            if run.unit is unit:
                return UnitProgress(unit, state, run.started.done, unit.epochs - run.started.done, run.where())
        done = self.logs[unit.identity].epoch()
        branch = unit.parents[0][1] if unit.parents else 0  # where it is to begin, if nothing goes wrong
        return UnitProgress(unit, state, done, unit.epochs - max(done, branch))


def _result(future: "Future[Attempt]") -> Attempt:
    try:
        return future.result()
    except Exception as error:  # of the executor: its worker died, or it could not run what it was given
        return Attempt(Ending.LOST, f"{type(error).__name__}: {error}".rstrip(": "))


def _has_checkpoint(unit: Unit) -> bool:
    """Whether it goes on by itself, from its own checkpoint."""
    return any(Path(unit.folder).glob("ckpt-*.pt"))
