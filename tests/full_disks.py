"""Disks that are full: a tmpfs of a given size in a namespace of this process, and a limit on the size of a file."""

import ctypes
import os
import resource
from collections.abc import Callable
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

_NEW_MOUNTS, _NEW_USER = 0x00020000, 0x10000000  # clone flags
_REMOUNT, _RECURSIVE, _PRIVATE = 32, 16384, 1 << 18  # mount flags
_LIBC = ctypes.CDLL(None, use_errno=True)
PLENTY = 2**26


class NotPermittedError(Exception):
    """This system does not let the process mount."""


def _checked(status: int) -> None:
    if status:
        raise NotPermittedError(os.strerror(ctypes.get_errno()))


def own_mounts() -> None:
    """From here on, mounts of this process are its own and go with it; for a process of one thread."""
    user, group = os.getuid(), os.getgid()
    if user == 0 and _LIBC.unshare(_NEW_MOUNTS) == 0:
        pass
    else:
        _checked(_LIBC.unshare(_NEW_MOUNTS | _NEW_USER))
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    _checked(_LIBC.mount(b"none", b"/", None, _RECURSIVE | _PRIVATE, None))


def _mount(folder: Path, size: int, flags: int = 0) -> None:
    _checked(_LIBC.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", flags, f"size={size}".encode()))


@contextmanager
def small_tmpfs(folder: Path, size: int):
    """A disk of so many bytes at an empty folder, in a process with `own_mounts`; yields what makes it large."""
    _mount(folder, size)
    try:
        yield lambda: _mount(folder, PLENTY, _REMOUNT)
    finally:
        _checked(_LIBC.umount(os.fsencode(folder)))


@contextmanager
def limited_files(folder: Path, size: int):
    """No file of this process may grow beyond so many bytes; yields what ends that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def end() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield end
    finally:
        end()


KINDS: dict[str, Callable] = {"tmpfs": small_tmpfs, "file size limit": limited_files}


def is_permitted(kind: str, folder: Path, told: Connection) -> None:
    """Tells whether such a disk can be had here: True, or why not."""
    try:
        if kind == "tmpfs":
            own_mounts()
        with KINDS[kind](folder, 2**20):
            told.send(True)
    except NotPermittedError as error:
        told.send(str(error))
