"""`fisherkit` commands in processes forked from one that has imported torch: real ones to kill, that start at once."""

import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        *("__main__", "fisherkit.studies", "fisherkit_cli.track", "fisherkit_cli.progress", "fisherkit_cli.summary"),
        *("torch._inductor", "scipy.stats"),  # which deterministic algorithms, and the summary, import
    ]
)
os.environ.setdefault("GOMP_SPINCOUNT", "0")  # where processes share the cores, threads that spin wait for each other
DEADLINE_S = 120.0


class Step(NamedTuple):
    """An optimiser step that has ended, and when (`time.monotonic`, which all processes share)."""

    number: int
    time_s: float


@dataclass
class Forked:
    """A command that runs, or has ended; `steps` are those that it has told of so far."""

    process: multiprocessing.process.BaseProcess
    pipe: Connection
    output: Path
    steps: list[Step] = field(default_factory=list)

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait_for_step(self, number: int) -> bool:
        """Until that step has ended; False where the process ends before."""
        while not self.steps or self.steps[-1].number < number:
            if not self._receive(DEADLINE_S):
                return False
        return True

    def end(self) -> int:
        """Wait for the end; the exit status, -N where signal N ended it."""
        while self._receive(DEADLINE_S):
            pass
        self.process.join(DEADLINE_S)
        assert self.process.exitcode is not None, f"still runs: {self.text()}"
        return self.process.exitcode

    def _receive(self, timeout_s: float) -> bool:
        assert self.pipe.poll(timeout_s), f"nothing came for {timeout_s:.0f} s: {self.text()}"
        try:
            self.steps.append(Step(*self.pipe.recv()))
        except EOFError:
            return False
        return True

    def text(self) -> str:
        """All that it printed."""
        return self.output.read_text()


@contextmanager
def forked(*arguments: str, output: Path, prepare: Callable[..., None] | None = None, given: tuple = ()):
    """`fisherkit ARGUMENTS` as a process, killed at the end if it still runs.

    `prepare`, a function of a module, is called in the process before the command, with what is `given`.
    """
    receiver, sender = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=_command, args=(arguments, output, sender, prepare, given))
    process.start()
    sender.close()
    try:
        yield Forked(process, receiver, output)
    finally:
        process.kill()
        process.join()
        receiver.close()


def checkpoint_often(share: float) -> None:
    """To prepare a command: checkpoints may take that share of the run's time."""
    from fisherkit.studies import run

    run.CHECKPOINT_SHARE = share


def _command(arguments, output: Path, sender: Connection, prepare, given) -> None:
    from fisherkit_cli import main, progress

    class Telling(progress.Progress):
        def stepped(self, run, step) -> None:
            sender.send((step.step, time.monotonic()))
            super().stepped(run, step)

    progress.Progress = Telling
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.argv = ["fisherkit", *arguments]
    if prepare is not None:
        prepare(*given)
    main.main()
