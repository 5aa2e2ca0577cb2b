"""The only code that writes files: whole files put in place atomically, and one writer per run folder or run file.

A reader sees the old file or the new one, never a part. After `atomic_write` has returned, the new file
survives a kill of the process and a loss of power. Every step is one call of a function of `os`, so that a
test can replay the state of the disk after each of them.
"""

import errno
import hashlib
import os
import re
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple

from filelock import FileLock, Timeout

from fisherkit.errors import FolderInUse

LOCK_NAME = ".lock"
_HOLDER = re.compile(r"process (?P<pid>[0-9]{1,9}) on (?P<host>\S+), started .*")
_HOLDER_WAIT_S = 1.0
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # a disk, a quota or a limit on file sizes is full
_LEFTOVER = re.compile(r"\..+\.(?P<host>[0-9a-f]{8})-(?P<pid>[0-9]+)-[0-9a-f]{8}\.tmp")


def atomic_write(path: Path, data: bytes | memoryview) -> None:
    """Put the data at `path`, whole or not at all.

    A temporary file in the same folder is written and synced, renamed over `path`, and the folder synced. On
    any error (a full disk, an interrupt) the temporary file is removed, `path` is as it was, and the error
    goes on.

    Raises:
        OSError: It could not be written; names `path`, and where space is missing the bytes that are needed.
    """
    temporary = path.with_name(f".{path.name}.{_host_tag()}-{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        _write_new(temporary, memoryview(data).cast("B"))
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError) and error.errno is not None:
            needed = f"; {memoryview(data).nbytes:,} bytes are needed" if error.errno in NO_SPACE else ""
            raise OSError(error.errno, f"{os.strerror(error.errno)}{needed}", str(path)) from error
        raise
    _sync_folder(path.parent)


def _write_new(path: Path, data: memoryview) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        while data:
            data = data[os.write(descriptor, data) :]  # a write may take a part: the rest goes round again
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    """Make the rename durable; some network file systems cannot sync a folder and say EINVAL or ENOTSUP."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def _make_folder(folder: Path) -> None:
    """Make the folder and those above it that are missing, each durable in the one above."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold the run folder for writing; the folder is made if it is not there.

    The operating system frees the lock when the process ends, however it ends. The text in `<folder>/.lock`
    (host, process, start) only serves the message of a refusal.

    Raises:
        FolderInUse: Another process, or another part of this one, holds the folder.
    """
    remedy = "Wait until it has finished, or stop it, and try again."
    with _held(folder / LOCK_NAME, what=folder, remedy=remedy):
        _remove_leftovers(folder)
        yield


@contextmanager
def lock_file(file: Path) -> Iterator[None]:
    """Hold one file for writing, whatever else is in its folder, by `.<name>.lock` beside it; otherwise as `lock`.

    The lock file stays, as that of a folder does: who removes it may remove it from under a process that waits for it.

    Raises:
        FolderInUse: Another process, or another part of this one, holds the file.
    """
    with _held(
        file.with_name(f".{file.name}{LOCK_NAME}"),
        what=file,
        remedy="Close it there, or wait until that process has ended, or choose another file.",
    ):
        yield


@contextmanager
def _held(path: Path, *, what: Path, remedy: str) -> Iterator[None]:
    _make_folder(path.parent)
    before = _written_holder(path)
    held = FileLock(path)
    try:
        held.acquire(blocking=False)
    except Timeout:
        raise FolderInUse(f"{what} is in use by {_holder(path, before)}. {remedy}") from None
    try:
        _write_holder(path)
        yield
    finally:
        held.release()


def _holder(path: Path, before: str | None) -> str:
    """Who holds the lock, as that process wrote it down: which it does just after it took the lock.

    `before` is what was there before this process tried. Some versions of filelock (3.25, not 4.3) empty the file when
    they try in vain; then it is put back, for others who try.
    """
    deadline = time.monotonic() + _HOLDER_WAIT_S
    while time.monotonic() < deadline:
        found = _written_holder(path)
        if found is not None:
            return found
        if before is not None and path.stat().st_size == 0:
            _write_in_place(path, before)
        time.sleep(0.005)
    return "another process"


def _written_holder(path: Path) -> str | None:
    """Who wrote that it holds the lock; None where nobody did, or that process of this machine has ended."""
    last = last_holder(path)
    return last.text if last.state in ("running", "elsewhere") else None


class Holder(NamedTuple):
    """Who took a lock last, as that process wrote it down."""

    text: str
    state: Literal["running", "ended", "elsewhere", "unknown"]  # elsewhere: on another machine; unknown: names nobody


def last_holder(path: Path) -> Holder:
    """What is written in a lock file; without touching the lock."""
    try:
        text = path.read_bytes()[:200].decode(errors="replace").strip()
    except OSError:
        text = ""
    named = _HOLDER.fullmatch(text)
    if named is None:
        return Holder(text, "unknown")
    if named["host"] != socket.gethostname():
        return Holder(text, "elsewhere")
    return Holder(text, "running" if alive(int(named["pid"])) else "ended")


def _write_holder(path: Path) -> None:
    start = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    _write_in_place(path, f"process {os.getpid()} on {socket.gethostname()}, started {start}")


def _write_in_place(path: Path, text: str) -> None:
    # a new file under the name would not be the locked one
    descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC)
    try:
        with suppress(OSError):  # a full disk: the lock holds without its text
            os.write(descriptor, f"{text}\n".encode())
    finally:
        os.close(descriptor)


def _remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of processes of this host that were killed while they wrote."""
    for path in folder.iterdir():
        match = _LEFTOVER.fullmatch(path.name)
        if match and match["host"] == _host_tag() and not alive(int(match["pid"])):
            with suppress(FileNotFoundError):
                os.unlink(path)


def alive(pid: int) -> bool:
    """Whether there is a process of that number on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _host_tag() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
