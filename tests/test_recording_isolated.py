"""The process that reads HDF5: crashes, hangs and bombs end there, and the next file is read."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from reliability.corpus_hdf5 import RUN

from fisherkit.errors import UnreadableFile
from fisherkit.recording import from_bytes, isolated, read

# the real process, and files that are named by what reading them does
PREPARED = """
import os, signal, time
from fisherkit.recording import isolated_child as child
def misbehave(how):
    def extract(data, path):
        if how == "crash": os.kill(os.getpid(), signal.SIGSEGV)
        if how == "spin": exec("while True: pass")
        if how == "sleep": time.sleep(60)
        if how == "eat": return bytearray(10**11)
        if how == "fail": raise ZeroDivisionError
    return extract
child._EXTRACT |= {how: misbehave(how) for how in ("crash", "spin", "sleep", "eat", "fail")}
child._CPU_S, child._IDLE_S = 0.5, SECONDS
child.serve()
"""


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[None]:
    isolated._stop()
    idle = getattr(request, "param", "30")
    start = (
        "import json, sys; sys.path[:] = json.loads(sys.argv[1]); exec(" + repr(PREPARED.replace("SECONDS", idle)) + ")"
    )
    monkeypatch.setattr(isolated, "_START", start)
    yield
    isolated._stop()


@pytest.fixture
def good(tmp_path: Path) -> Path:
    (tmp_path / "run.h5").write_bytes(RUN)
    return tmp_path / "run.h5"


@pytest.mark.usefixtures("prepared")
@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("crash", r"file.h5: cannot be read: it crashes the HDF5 library \(SIGSEGV\). Use a copy of it"),
        ("spin", "file.h5: cannot be read: it takes too long"),
        ("eat", "file.h5: cannot be read: it takes too much memory"),
        ("fail", "file.h5: cannot be read"),
    ],
)
def test_what_a_file_does_to_the_process_is_an_error(how: str, message: str, good: Path) -> None:
    with pytest.raises(UnreadableFile, match=message):
        isolated.extract(how, b"data", "file.h5")
    assert read(good).differences(from_bytes(RUN), ignore=()) == []


@pytest.mark.usefixtures("prepared")
def test_a_file_that_takes_for_ever_without_computing(monkeypatch: pytest.MonkeyPatch, good: Path) -> None:
    read(good)
    monkeypatch.setattr(isolated, "_LONGEST_S", 0.2)
    with pytest.raises(UnreadableFile, match="it takes too long"):
        isolated.extract("sleep", b"data", "file.h5")


@pytest.mark.usefixtures("prepared")
@pytest.mark.parametrize("prepared", ["0.5"], indirect=True)
def test_it_ends_when_idle_and_starts_again(good: Path) -> None:
    read(good)
    assert isolated._child is not None
    first = isolated._child.process
    first.wait(timeout=30)
    assert first.returncode == 0
    assert read(good).layers == from_bytes(RUN).layers


def test_a_process_that_cannot_start_is_an_error(monkeypatch: pytest.MonkeyPatch, good: Path) -> None:
    isolated._stop()
    monkeypatch.setattr(isolated, "_START", "raise SystemExit(3)")
    with pytest.raises(OSError, match="the process that reads HDF5 files could not be started; run `fisherkit doctor`"):
        read(good)
    assert isolated._child is None


def test_one_process_reads_all_files_in_a_session_of_its_own(good: Path) -> None:
    read(good)
    assert isolated._child is not None
    first = isolated._child.process.pid
    read(good)
    assert isolated._child.process.pid == first
    assert os.getsid(first) == first  # Ctrl-C in the terminal does not reach it


def test_a_large_file_goes_through(tmp_path: Path) -> None:
    """The limits are for what a file may need: 13 MB here, in columns that hold nothing but noise or nothing at all."""
    import numpy as np
    from trajectories import made_up

    from fisherkit.recording import Trajectory, to_bytes

    small, rows = made_up(rows=2, layers=20), 8_000
    noise = np.random.default_rng(0).normal(size=(rows, 20))
    variables = {f"noise_{k}": noise + k for k in range(10)} | {f"empty_{k}": noise * np.nan for k in range(20)}
    series = {"epoch": np.arange(rows, dtype=float), "step": np.arange(rows)}
    large = Trajectory(small.layers, small.parameters, variables, series, {})
    (tmp_path / "run.h5").write_bytes(to_bytes(large))
    assert read(tmp_path / "run.h5").differences(large, ignore=()) == []


SCRIPT = """
import os, sys
from fisherkit.recording import isolated, read
read(sys.argv[1])
first = isolated._child.process.pid
if sys.argv[2] == "fork":
    pid = os.fork()
    if pid == 0:
        read(sys.argv[1])
        os._exit(0 if isolated._child.process.pid != first else 3)
    assert os.waitpid(pid, 0)[1] == 0
    read(sys.argv[1])
    assert isolated._child.process.pid == first
print(first, flush=True)
if sys.argv[2] == "kill":
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("how", ["end", "kill", "fork"])
def test_it_ends_with_its_parent_and_is_not_shared_with_forks(how: str, good: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", SCRIPT, str(good), how]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.returncode == (-9 if how == "kill" else 0)
    pid, give_up = int(done.stdout), time.monotonic() + 30
    while _runs(pid):
        assert time.monotonic() < give_up
        time.sleep(0.01)


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_without_forks_it_says_where_it_works():
    code = "import os, random; del os.register_at_fork; import fisherkit; fisherkit.read"  # which `random` needs too
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1].startswith("ImportError: fisherkit keeps runs in files on Linux and macOS")
