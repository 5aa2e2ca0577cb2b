"""A dask cluster by its command line, as on a real one: a scheduler, and workers with their nannies."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

DEADLINE_S = 120.0


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {DEADLINE_S:.0f} s"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether the process runs; one that is dead, but not yet waited for by its parent, does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


class Cluster:
    """`address` is that of the scheduler."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.processes = folder, []
        self.file = folder / "scheduler.json"
        self._start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
        wait_until(self.file.exists)
        self.address = json.loads(self.file.read_text())["address"]

    def _start(self, what: str, *options: str, **environment: str) -> None:
        with (self.folder / f"{what}-{len(self.processes)}.log").open("w") as log:
            command = [sys.executable, "-m", "dask", what, "--scheduler-file", str(self.file), *options]
            self.processes.append(
                subprocess.Popen(command, cwd=self.folder, env={**os.environ, **environment}, stdout=log, stderr=log)
            )

    def add_worker(self, *options: str, **environment: str) -> None:
        options = (*options, "--nthreads", "1", "--no-dashboard", "--host", "127.0.0.1", "--death-timeout", "60")
        self._start("worker", *options, **environment)

    def close(self) -> None:
        for process in reversed(self.processes):  # a worker ends with its nanny
            process.kill()
            process.wait()


def kill(*pids: int) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
