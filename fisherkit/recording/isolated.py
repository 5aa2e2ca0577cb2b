"""Reading HDF5 in a process of its own, with limits of time and memory.

A file can be made to crash the HDF5 library, or to keep it busy for ever; its structure can only be looked at with
that same library. Who made a file cannot be seen in it: a download belongs to the user as a run does, and a checksum
can be computed by anybody. So every file that is read by its path is read there, and comes back as plain values. The
process starts with the first file (0.3 s), reads the following ones for a millisecond more than here, and ends when it
has had nothing to do for a while or its parent has gone.
"""

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

from fisherkit.errors import UnreadableFile
from fisherkit.recording.extracted import Extracted, receive

if not hasattr(os, "register_at_fork"):
    raise ImportError("fisherkit keeps runs in files on Linux and macOS; on Windows use it in WSL.")

# the limits of processor time and memory are the child's own; this one is for what uses neither
_LONGEST_S = 60.0
STARTED = b"ready\n"  # its first line
_START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
_START += "from fisherkit.recording.isolated_child import serve; serve()"


def extract(kind: str, data: bytes, path: str | Path) -> Extracted:
    """What the bytes of a `run` or `study` hold, or the `content` that they name; `path` is what errors call them.

    Raises:
        UnreadableFile: It is no such file; or reading it crashed, or took too long or too much memory.
        OSError: No process can be started.
    """
    with _lock:
        try:
            found = _ask(kind, data, path)
        except BaseException:  # an interrupt in between: an answer may be under way
            _stop()
            raise
    if isinstance(found, UnreadableFile):
        raise found
    return found


class _Child:
    """The process, ready to be asked."""

    def __init__(self) -> None:
        command = [sys.executable, "-c", _START, json.dumps(sys.path)]
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        single = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # it computes nothing
        # a session of its own: Ctrl-C is for the parent alone
        self.process = subprocess.Popen(command, env=os.environ | single, start_new_session=True, **pipes)
        try:
            self._read_line()
        except EOFError:
            self.end()
            problem = "the process that reads HDF5 files could not be started; run `fisherkit doctor`."
            raise OSError(problem) from None

    def ask(self, kind: str, data: bytes, path: str | Path) -> Extracted | UnreadableFile:
        """What the bytes hold, or why not.

        Raises:
            EOFError: The process has ended.
        """
        sending, receiving = cast(BinaryIO, self.process.stdin), cast(BinaryIO, self.process.stdout)
        alarm = threading.Timer(_LONGEST_S, self.process.kill)
        alarm.start()
        try:
            sending.write(json.dumps({"kind": kind, "size": len(data)}).encode() + b"\n")
            sending.write(data)
            sending.flush()
            header = json.loads(self._read_line())
            if "problem" in header:
                return UnreadableFile(path, header["problem"], dataset=header["dataset"])
            return receive(header, receiving)
        except BrokenPipeError as error:
            raise EOFError from error
        finally:
            alarm.cancel()

    def _read_line(self) -> bytes:
        line = cast(BinaryIO, self.process.stdout).readline()
        if not line.endswith(b"\n"):
            raise EOFError
        return line

    def end(self) -> int:
        """End it, if it has not ended yet; its exit status."""
        for pipe in (self.process.stdin, self.process.stdout):
            with suppress(OSError):  # the rest of what it was asked
                cast(BinaryIO, pipe).close()
        try:
            return self.process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


_lock = threading.Lock()
_child: _Child | None = None


def _ask(kind: str, data: bytes, path: str | Path) -> Extracted | UnreadableFile:
    global _child  # noqa: PLW0603
    while True:
        if _child is None:
            _child = _Child()
        try:
            return _child.ask(kind, data, path)
        except EOFError:
            status = _stop()
        if status != 0:  # else it had nothing to do for long, and ended just now
            return UnreadableFile(path, f"cannot be read: {_why(status)}. Use a copy of it, if there is one.")


def _why(status: int) -> str:
    if status in (-signal.SIGPROF, -signal.SIGKILL):
        return "it takes too long"
    if status < 0:
        return f"it crashes the HDF5 library ({signal.Signals(-status).name})"
    return "it takes too much memory"


def _stop() -> int:
    global _child
    ended, _child = _child, None
    return 0 if ended is None else ended.end()


def _forget() -> None:
    """In a forked process: the child is the parent's."""
    global _child, _lock
    if _child is not None:
        _child.process.returncode = 0
        for pipe in (_child.process.stdin, _child.process.stdout):
            pipe.raw.close()  # type: ignore[union-attr]  # not the buffer, which would send what is left in it
    _child, _lock = None, threading.Lock()


atexit.register(_stop)
os.register_at_fork(after_in_child=_forget)
