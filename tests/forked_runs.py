"""`fisherkit` commands in processes forked from one that has imported torch: real ones to kill, that start at once."""

import multiprocessing
import multiprocessing.connection
import os
import signal
import subprocess
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
    """An optimiser step that has ended (or: the run goes on after it), and when, in `time.monotonic`, which is one
    clock for all processes."""

    number: int
    time_s: float


@dataclass
class Forked:
    """A command that runs, or has ended; `steps` are those it has told of: where it goes on, then the next ones."""

    process: multiprocessing.process.BaseProcess
    pipe: Connection
    output: Path
    steps: list[Step] = field(default_factory=list)

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait_for_step(self, number: int) -> bool:
        """Until that step has ended, or the run has begun after it; False where the process ends before."""
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

    def ends_first(self, other: "Forked") -> bool:
        """Wait until one of the two has ended; whether this one has."""
        return self.process.sentinel in multiprocessing.connection.wait([self.process.sentinel, other.process.sentinel])

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


def command(*arguments: str) -> subprocess.Popen[str]:
    """`fisherkit ARGUMENTS` from scratch, as a shell starts it."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    python = [sys.executable, "-m", "fisherkit_cli"]
    return subprocess.Popen(
        [*python, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def _command(arguments, output: Path, sender: Connection, prepare, given) -> None:
    from fisherkit_cli import main, progress

    if prepare is not None:
        prepare(*given)

    class Telling(progress.Progress):
        def started(self, run, *, resumed_at) -> None:
            sender.send((resumed_at or 0, time.monotonic()))
            super().started(run, resumed_at=resumed_at)

        def stepped(self, run, step) -> None:
            sender.send((step.step, time.monotonic()))
            super().stepped(run, step)

    progress.Progress = Telling
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.argv = ["fisherkit", *arguments]
    main.main()


# to prepare a forked command


def checkpoint_often(share: float) -> None:
    """Checkpoints, and the publications that go before them, may take that share of the run's time."""
    from fisherkit.recording import writer
    from fisherkit.studies import run

    run.CHECKPOINT_SHARE = share
    writer._LARGEST_SHARE = max(share, writer._LARGEST_SHARE)


def publish_always() -> None:
    """The run file is published after every row, and a checkpoint at every epoch."""
    checkpoint_often(1e9)


def ignore_signals() -> None:
    """As a shell starts what is to run in the background."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def hang(noted: Path) -> None:
    """Every step takes an hour; the file is there as soon as the run knows of a signal."""
    from fisherkit_cli import progress

    from fisherkit.studies import signals

    class Noted(signals.StopRequest):
        def __setattr__(self, name: str, value: object) -> None:
            super().__setattr__(name, value)
            if value is not None:
                noted.touch()

    signals.StopRequest = Noted
    progress.Progress.stepped = lambda *_: time.sleep(3600)
