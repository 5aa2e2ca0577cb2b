"""Files are put in place whole or not at all, whatever happens on the way."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fisherkit import storage
from fisherkit.errors import RunRefused
from fisherkit.storage import atomic_write, lock

OLD, NEW = b"old contents", b"new contents, longer than the old"


class Disk:
    """Wraps the calls of `os` that change the disk; photographs the folder before each of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, *, largest_write: int = 7) -> None:
        self.folder, self.states, self.largest_write = folder, [], largest_write
        self._busy = False
        self.real = {name: getattr(os, name) for name in ("open", "write", "fsync", "replace", "unlink", "close")}
        for name in self.real:
            monkeypatch.setattr(os, name, getattr(self, name))

    def _call(self, name: str, *arguments):
        if not self._busy:
            self._busy = True  # read_bytes below opens files too
            self.states.append({p.name: p.read_bytes() for p in self.folder.iterdir()})
            self._busy = False
        return self.real[name](*arguments)

    def open(self, *arguments):
        return self._call("open", *arguments)

    def write(self, descriptor, data):
        return self._call("write", descriptor, bytes(data[: self.largest_write]))

    def fsync(self, descriptor):
        return self._call("fsync", descriptor)

    def replace(self, *arguments):
        return self._call("replace", *arguments)

    def unlink(self, *arguments):
        return self._call("unlink", *arguments)

    def close(self, descriptor):
        return self._call("close", descriptor)


@pytest.mark.parametrize("existed", [False, True], ids=["new file", "over an old one"])
def test_every_crash_state_has_the_old_or_the_new_file(tmp_path, monkeypatch, existed):
    path = tmp_path / "run.h5"
    if existed:
        path.write_bytes(OLD)
    with monkeypatch.context() as patch:
        disk = Disk(patch, tmp_path)
        atomic_write(path, NEW)
    seen = [state.get("run.h5") for state in disk.states]
    before = OLD if existed else None
    assert len(seen) > 8  # open, parts of the data, fsync, close, replace, folder
    assert set(seen) == {before, NEW}
    assert seen == sorted(seen, key=lambda contents: contents == NEW)  # and never back
    assert os.listdir(tmp_path) == ["run.h5"]


def test_data_is_synced_before_it_gets_the_name_and_the_folder_after(tmp_path, monkeypatch):
    calls = []
    for name in ("write", "fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, name=name, real=real: (calls.append(name), real(*a))[1])
    atomic_write(tmp_path / "run.h5", NEW)
    assert calls == ["write", "fsync", "replace", "fsync"]


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_an_error_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, call, error):
    path = tmp_path / "run.h5"
    path.write_bytes(OLD)

    def fail(*arguments):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(type(error)):
            atomic_write(path, NEW)
    assert path.read_bytes() == OLD
    assert os.listdir(tmp_path) == ["run.h5"]


@pytest.mark.parametrize("data", [b"", b"x" * 100_000, memoryview(b"a view")], ids=["empty", "long", "view"])
def test_writes_what_it_was_given(tmp_path, data):
    atomic_write(tmp_path / "file", data)
    assert (tmp_path / "file").read_bytes() == bytes(data)


def test_a_folder_that_cannot_be_synced_is_no_error(tmp_path, monkeypatch):
    real = os.fsync
    answers = iter([None, OSError(errno.EINVAL, "Invalid argument")])

    def fsync(descriptor):
        answer = next(answers)
        if answer:
            raise answer
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    atomic_write(tmp_path / "file", NEW)
    assert (tmp_path / "file").read_bytes() == NEW


FULL_DISK = """
import resource, sys
from pathlib import Path
from fisherkit.storage import atomic_write
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    atomic_write(Path(sys.argv[1]), b"x" * 5000)
except OSError as error:
    print(error.strerror)
"""


def test_a_file_size_limit_leaves_the_old_file(tmp_path):
    path = tmp_path / "run.h5"
    path.write_bytes(OLD)
    done = subprocess.run([sys.executable, "-c", FULL_DISK, path], capture_output=True, text=True, check=True)
    assert done.stdout == "File too large; 5,000 bytes are needed\n"
    assert path.read_bytes() == OLD
    assert os.listdir(tmp_path) == ["run.h5"]


def test_lock_refuses_a_second_holder_and_names_the_first(tmp_path):
    folder = tmp_path / "runs" / "one"
    with lock(folder):
        with (
            pytest.raises(RunRefused, match=rf"is in use by process {os.getpid()} on .*, started 2.* UTC"),
            lock(folder),
        ):
            pass
        assert str(os.getpid()) in (folder / ".lock").read_text()
    with lock(folder):  # free again
        pass


def refusal(folder: Path) -> str:
    with pytest.raises(RunRefused) as caught, lock(folder):
        pass
    return str(caught.value)


def test_a_holder_that_has_not_yet_written_who_it_is_is_waited_for(tmp_path, monkeypatch):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with lock(tmp_path):
        mine = (tmp_path / ".lock").read_text()
        stale = mine.replace(f"process {os.getpid()} ", f"process {ended.pid} ")
        (tmp_path / ".lock").write_text(stale)
        monkeypatch.setattr(storage.time, "sleep", lambda _: (tmp_path / ".lock").write_text(mine))
        assert f"in use by process {os.getpid()} on" in refusal(tmp_path)
        (tmp_path / ".lock").write_text(stale)
        monkeypatch.setattr(storage.time, "sleep", lambda _: None)
        monkeypatch.setattr(storage, "_HOLDER_WAIT_S", 0.01)
        assert "in use by another process. Wait" in refusal(tmp_path)


def test_the_holder_is_named_again_and_again_where_filelock_empties_the_file(tmp_path, monkeypatch):
    class Emptying(storage.FileLock):
        def acquire(self, *args, **options):
            os.truncate(tmp_path / ".lock", 0)
            return super().acquire(*args, **options)

    with lock(tmp_path):
        monkeypatch.setattr(storage, "FileLock", Emptying)
        assert [f"process {os.getpid()} on" in refusal(tmp_path) for _ in range(3)] == [True] * 3


def test_lock_is_free_after_the_body_raised(tmp_path):
    with pytest.raises(KeyError), lock(tmp_path):
        raise KeyError("body")
    with lock(tmp_path):
        pass


def test_a_file_that_cannot_be_made_is_named_and_not_the_temporary_one(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        atomic_write(tmp_path / "nowhere" / "run.h5", b"x")
    assert caught.value.filename == str(tmp_path / "nowhere" / "run.h5")


HOLDER = """
import os, sys
from pathlib import Path
from fisherkit.storage import lock
with lock(Path(sys.argv[1])):
    (Path(sys.argv[1]) / f".run.h5.{sys.argv[2]}-{os.getpid()}-0123abcd.tmp").write_bytes(b"half a file")
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_killed_holder_frees_the_lock_and_its_half_written_file_is_removed(tmp_path):
    from fisherkit.storage import _host_tag

    command = [sys.executable, "-c", HOLDER, str(tmp_path), _host_tag()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RunRefused, match=f"process {holder.pid}"), lock(tmp_path):
            pass
        holder.send_signal(signal.SIGKILL)
    of_a_living_process = tmp_path / f".run.h5.{_host_tag()}-{os.getpid()}-0123abcd.tmp"
    of_another_host = tmp_path / ".run.h5.00000000-1-0123abcd.tmp"
    for path in (of_a_living_process, of_another_host):
        path.write_bytes(b"")
    with lock(tmp_path):
        assert set(tmp_path.iterdir()) == {tmp_path / ".lock", of_a_living_process, of_another_host}
