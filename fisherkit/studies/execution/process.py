"""One run as a process of its own: what an executor's worker does."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from fisherkit.errors import RunRefused, UnreadableFile
from fisherkit.recording import read
from fisherkit.storage import atomic_write, lock
from fisherkit.studies.execution.lease import Lease
from fisherkit.studies.execution.unit import Attempt, Ending, Origin, Slot, Unit
from fisherkit.studies.specification import RunSpecification

LOG_NAME, SPECIFICATION_NAME = "log.txt", "specification.json"
LOCK_WAIT_S, LOOK_EVERY_S = 60.0, 1.0
IN_USE_STATUS = 75  # EX_TEMPFAIL
_STOPPED_STATUS = {128 + number: number for number in (signal.SIGINT, signal.SIGKILL, signal.SIGTERM)}
_LAST_LINES, _LAST_BYTES = 12, 4000


def run_unit(
    unit: Unit,
    origin: Origin | None,
    slot: Slot,
    *,
    lease: Lease | None = None,
    command: Sequence[str] | None = None,
    directory: str | None = None,
) -> Attempt:
    """Run a unit in a process that ends when this one does, and wait for it.

    The process gets the specification in a file, `origin` and `unit.keep` as options, the environment of the slot;
    what it prints is added to `log.txt`. Nothing is started where the run is done, or while another process has its
    folder (one that outlives a killed parent by a moment).

    Args:
        lease: whose driver this is for; when it ends, the process is asked to stop, cleanly.
        command: the start of the command line; by default `python -m fisherkit_cli track` of this machine.
        directory: where the process runs, for relative paths and modules of the user's own.
    """
    folder = Path(unit.folder)
    watch = None if lease is None else lease.watch()
    ended = _never if watch is None else watch.ended
    missing = _missing_folder(lease, directory)
    if missing is not None:
        return Attempt(Ending.FAILED, missing)
    done = state_on_disk(unit)
    if done is not None:
        return Attempt(done)
    if ended():
        return Attempt(Ending.STOPPED, "the driver has stopped")
    holder = _wait_until_free(folder, ended)
    if holder is not None:
        return Attempt(Ending.IN_USE, holder)
    arguments = _command_line(unit, origin, command or (sys.executable, "-m", "fisherkit_cli", "track"))
    log = folder / LOG_NAME
    start = _begin_log(log, origin, slot)
    status, asked = _run(arguments, log, _environment(unit, slot, os.environ), directory, ended)
    return _attempt(unit, status, asked, last_lines(log, start))


def _never() -> bool:
    return False


def state_on_disk(unit: Unit) -> Ending | None:
    """FINISHED or EXPLODED where the unit's run.h5 says so; else None.

    The file must be of this very run: one of another is left to the run's process, which refuses it with the reason.
    """
    try:
        attributes = read(Path(unit.folder) / "run.h5").attributes
        recorded = RunSpecification.model_validate(attributes.get("configuration"))
    except (OSError, UnreadableFile, ValueError):
        return None
    if RunSpecification.model_validate_json(unit.specification).differing_options(recorded):
        return None
    if attributes.get("finished"):
        return Ending.FINISHED
    return Ending.EXPLODED if attributes.get("exploded") else None


def _missing_folder(lease: Lease | None, directory: str | None) -> str | None:
    """What of the driver's disk is not there, as a sentence: the folders of a study are on a shared file system."""
    needed = [Path(lease.path).parent] if lease is not None else []
    needed += [Path(directory)] if directory is not None else []
    absent = [path for path in needed if not path.is_dir()]
    if absent:
        return f"{absent[0]} is not there on {socket.gethostname()}. Workers must share the file system of the study."
    return None


def _wait_until_free(folder: Path, ended: Callable[[], bool]) -> str | None:
    """None as soon as nobody holds the folder; who holds it, after LOCK_WAIT_S."""
    deadline = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            with lock(folder):
                return None
        except RunRefused as error:
            if time.monotonic() > deadline or ended():
                return str(error)
        time.sleep(LOOK_EVERY_S / 2)


def _command_line(unit: Unit, origin: Origin | None, command: Sequence[str]) -> list[str]:
    specification = Path(unit.folder) / SPECIFICATION_NAME
    atomic_write(specification, unit.specification.encode())
    arguments = [*command, "--specification", str(specification), "--out", unit.folder]
    if origin is not None:
        arguments += ["--branch-from", origin.folder, "--branch-epoch", str(origin.epoch)]
    for epoch in unit.keep:
        arguments += ["--keep-checkpoint", str(epoch)]
    return arguments


def _environment(unit: Unit, slot: Slot, inherited: Mapping[str, str]) -> dict[str, str]:
    # options in the environment were read by the driver; here they would contradict the specification
    kept = {name: value for name, value in inherited.items() if not name.startswith("FISHERKIT_TRACK_")}
    threads = {} if unit.threads is None else {"OMP_NUM_THREADS": str(unit.threads)}
    return {**kept, **threads, **slot.environment, "FISHERKIT_PARENT_PIPE": "1", "PYTHONUNBUFFERED": "1"}


def _begin_log(log: Path, origin: Origin | None, slot: Slot) -> int:
    """Say in the log who starts the run, where; the byte at which the run's own lines begin."""
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    branch = "" if origin is None else f", branching off {origin.folder} at epoch {origin.epoch}"
    with log.open("ab") as file:
        file.write(
            f"-- {now}: started by process {os.getpid()} on {socket.gethostname()}, {slot.name}{branch}\n".encode()
        )
        return file.tell()


def _run(
    arguments: Sequence[str],
    log: Path,
    environment: Mapping[str, str],
    directory: str | None,
    ended: Callable[[], bool],
) -> tuple[int, bool]:
    """The exit status, and whether the process was asked to stop."""
    with log.open("ab") as file:
        # a session of its own: Ctrl-C in the terminal reaches the driver only, which then asks every run once
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            cwd=directory,
            start_new_session=True,
        )
    with process:  # on an exception, too, its input closes and it is waited for
        return _wait(process, ended)


def _wait(process: "subprocess.Popen[bytes]", ended: Callable[[], bool]) -> tuple[int, bool]:
    """Wait for the end; once `ended`, ask for it by closing the pipe that is the process's input."""
    assert process.stdin is not None
    asked = False
    while True:
        try:
            return process.wait(timeout=None if asked else LOOK_EVERY_S), asked
        except subprocess.TimeoutExpired:
            if ended():
                process.stdin.close()
                asked = True


def _attempt(unit: Unit, status: int, asked: bool, lines: str) -> Attempt:
    number = -status if status < 0 else _STOPPED_STATUS.get(status)
    done = state_on_disk(unit)
    if done is not None and (number is not None or status == (0 if done is Ending.FINISHED else 1)):
        return Attempt(done)
    if number is not None:
        return Attempt(Ending.STOPPED) if asked else Attempt(Ending.KILLED, _killed_by(number), lines)
    if status == IN_USE_STATUS:
        return Attempt(Ending.IN_USE, _reason(lines), lines)
    if status == 0:
        return Attempt(Ending.FAILED, "exit status 0, but its run.h5 is not that of a finished run", lines)
    return Attempt(Ending.FAILED, _reason(lines) or f"exit status {status}, without a word", lines)


def _reason(lines: str) -> str:
    """The line that says why: the command line's own last word, or whatever came last."""
    found = lines.splitlines()
    return next((line for line in reversed(found) if line.startswith("fisherkit: ")), found[-1] if found else "")


def _killed_by(number: int) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    return f"killed by {name}" + (" (out of memory? fewer slots need less)" if number == signal.SIGKILL else "")


def last_lines(log: Path, start: int = 0) -> str:
    """The last lines of a log from that byte on."""
    with log.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(start, end - _LAST_BYTES))
        text = file.read().decode(errors="replace")
    return "\n".join(text.strip().splitlines()[-_LAST_LINES:])
