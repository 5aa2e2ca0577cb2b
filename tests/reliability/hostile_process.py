"""Runs the hostile corpus through the command line, in processes with limits, and prints what each case did.

    python hostile_process.py FOLDER BATCH START STEP    # one line of JSON for each case

Everything is imported first; then a fork runs BATCH cases, so that what a case takes beyond the start can be measured.
"""

import contextlib
import io
import json
import os
import re
import resource
import select
import shutil
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from fisherkit_cli import failure
from fisherkit_cli.main import fisherkit as command
from reliability import corpus_hdf5, corpus_images, corpus_texts, corpus_weights
from reliability.corpus import EXECUTED, SECRET, Case
from safetensors.torch import save

from fisherkit.recording import isolated

LONGEST_S = 60
_MEMORY = 2**30  # what a case may claim at all; what it took is measured
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_TELLING = {
    *("os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen", "pty.spawn", "socket.connect"),
    *("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "webbrowser.open"),
}


@dataclass
class Outcome:
    """What a case did."""

    name: str
    status: int | None = None
    output: str = ""
    cpu_s: float = 0.0
    wall_s: float = 0.0
    memory: int = 0  # bytes beyond the start, in this process
    memory_apart: int = 0  # bytes in the process that reads HDF5
    deeds: list[str] = field(default_factory=list)  # files written, programs started, other files read
    stray: str = ""  # the traceback of an exception that nobody reports


_deeds: list[str] | None = None


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook: what code does that is not only reading."""
    if _deeds is None:
        return
    if event == "open":
        path, _, flags = arguments
        if str(path).endswith("secret.txt"):
            _deeds.append(f"reads {path}")
        elif isinstance(flags, int) and flags & _WRITING and str(path) != os.devnull:
            _deeds.append(f"writes {path}")
    elif event in _TELLING and "isolated_child" not in str(arguments):
        _deeds.append(f"{event} {str(arguments)[:200]}")


def all_cases() -> list[Case]:
    """The corpus."""
    return [*corpus_hdf5.CASES, *corpus_weights.cases(), *corpus_images.cases(), *corpus_texts.cases()]


def prepare(case: Case, folder: Path) -> None:
    """Make the files of the case in an empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "home").mkdir(parents=True)
    os.chdir(folder)
    case.make(folder)
    if (folder / "secret.txt").exists():
        os.utime(folder / "secret.txt", (1, time.time()))  # a read would set the time of access
    isolated.extract("run", corpus_hdf5.RUN, "a good one")  # the process is there


def run(case: Case, folder: Path) -> Outcome:
    """Do the case in the folder that is prepared."""
    secret = folder / "secret.txt"
    before, outcome = _contents(folder), Outcome(case.name)
    with _measured(outcome):
        _call([argument.replace("{}", str(folder)) for argument in case.arguments], outcome)
    if case.status != 0:
        outcome.deeds += [f"leaves {path}" for path, _ in sorted(_contents(folder) ^ before)]
    if secret.exists() and secret.stat().st_atime != 1:
        outcome.deeds.append("reads secret.txt")
    if (folder / EXECUTED).exists():
        outcome.deeds.append("runs code")
    if SECRET in outcome.output:
        outcome.deeds.append("shows secret.txt")
    return outcome


def _contents(folder: Path) -> set[tuple[str, Any]]:
    """What lies in the folder, with sizes and times of change."""
    found = set()
    for path in folder.rglob("*"):
        facts = path.lstat()
        found.add((str(path.relative_to(folder)), (facts.st_size, facts.st_mtime_ns, facts.st_mode)))
    return found


@contextlib.contextmanager
def _measured(outcome: Outcome) -> Iterator[None]:
    global _deeds  # noqa: PLW0603
    apart = isolated._child.process.pid if isolated._child else 0
    for pid in (os.getpid(), apart):
        _reset_peak(pid)
    start, other = _status(os.getpid(), "VmRSS"), _status(apart, "VmRSS")
    cpu, wall = _cpu(apart), time.monotonic()
    _deeds = outcome.deeds
    try:
        yield
    finally:
        _deeds = None
    outcome.wall_s = time.monotonic() - wall
    outcome.cpu_s = _cpu(apart) - cpu
    outcome.memory = _status(os.getpid(), "VmHWM") - start
    outcome.memory_apart = max(0, _status(apart, "VmHWM") - other)


def _reset_peak(pid: int) -> None:
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def _status(pid: int, name: str) -> int:
    """Bytes; 0 for a process that has ended."""
    try:
        found = re.search(rf"{name}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0


def _cpu(apart: int) -> float:
    """Seconds of this process, of its ended children, and of the one that reads HDF5."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = time.process_time() + ended.ru_utime + ended.ru_stime
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{apart}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def _call(arguments: list[str], outcome: Outcome) -> None:
    """As `fisherkit_cli.main.main` does it."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            status = command.main(args=arguments, prog_name="fisherkit", standalone_mode=False)
            outcome.status = status if isinstance(status, int) else 0
        except SystemExit as error:
            outcome.status = error.code if isinstance(error.code, int) else 1
        except Exception as error:
            try:
                outcome.status = failure.report(error)
            except Exception:
                outcome.stray = traceback.format_exc()
            if "--debug" in said.getvalue():
                outcome.stray = "".join(traceback.format_exception(error))
        except BaseException:
            outcome.stray = traceback.format_exc()
    outcome.output = said.getvalue()[:5_000]


def warm_up(folder: Path) -> None:
    """Every command once, on good files, so that all that is imported for them is there."""
    folder.mkdir(parents=True)
    os.chdir(folder)
    (folder / "run.h5").write_bytes(corpus_hdf5.RUN)
    (folder / "study.h5").write_bytes(corpus_hdf5.STUDY)
    torch.save(corpus_weights.good(), folder / "good.pt")
    (folder / "good.safetensors").write_bytes(save(dict(corpus_weights.good())))
    for release in ("cifar10 binary", "svhn"):
        corpus_images.release(release).folder(folder)
    measure = ("measure", "good.pt", "good.safetensors", *corpus_weights.MODEL, "--out", "m.h5")
    for arguments in (
        *(("show", "run.h5"), ("plot", "run.h5"), ("plot", "run.h5", "--curves"), ("analyze", "run.h5")),
        *(("show", "study.h5"), ("analyze", "study.h5"), measure, ("track", "--specification", "run.h5")),
        *(("data", "check", name, "--data-dir", str(folder)) for name in ("cifar10", "svhn")),
        (*corpus_texts.ONE_EPOCH[:-1], "run"),
        ("study", "custom", "run.h5"),
    ):
        outcome = Outcome("")
        _call(list(arguments), outcome)
        assert outcome.status in (0, 2, 65), (arguments, outcome)


def _batch(cases: list[Case], folder: Path, pipe: int) -> None:
    """In a fork: do the cases, and write a line for each as it ends."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + _MEMORY,) * 2)

    def say(line: dict[str, Any]) -> None:
        os.write(pipe, json.dumps(line).encode() + b"\n")

    for case in cases:
        say({"begins": case.name})
        prepare(case, folder)
        say({"begins": case.name})
        say(asdict(run(case, folder)))
    isolated._stop()


def _in_a_fork(cases: list[Case], folder: Path) -> list[dict[str, Any]]:
    """The outcomes, fewer than the cases where one of them ended the process or hung."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        try:
            _batch(cases, folder, writing)
        except BaseException:
            traceback.print_exc()
            os._exit(70)
        os._exit(0)
    os.close(writing)
    lines, left = [], b""
    while True:
        ready = select.select([reading], [], [], LONGEST_S)[0]
        data = os.read(reading, 2**16) if ready else b""
        if not data:
            break
        *more, left = (left + data).split(b"\n")
        lines += [json.loads(line) for line in more]
    os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    os.close(reading)
    if lines and "begins" in lines[-1]:
        lines.append({**asdict(Outcome(lines[-1]["begins"])), "stray": f"hung, or ended the process ({status})"})
    return [line for line in lines if "begins" not in line]


def main() -> None:
    """Print an outcome a line."""
    folder, batch, start, step = Path(sys.argv[1]), *map(int, sys.argv[2:])
    os.environ |= {"HOME": str(folder / "case" / "home"), "XDG_CACHE_HOME": str(folder / "cache")}
    os.environ.pop("FISHERKIT_DATA", None)
    torch.set_num_threads(1)
    sys.dont_write_bytecode = True
    with corpus_images.small_catalogue():
        warm_up(folder / "good")
        sys.addaudithook(_watch)
        warnings.simplefilter("always")  # a warning would be a second line
        left = all_cases()[start::step]
        while left:
            outcomes = _in_a_fork(left[:batch], folder / "case")
            for outcome in outcomes:
                print(json.dumps(outcome), flush=True)
            left = left[max(1, len(outcomes)) :]


if __name__ == "__main__":
    main()
