"""A model of the disk: what a run asked of the operating system, and what a crash may have left of it.

`Recorder` writes down every call of `os` that changes something below a folder. `after_kill` is what a kill of the
process after some of these calls leaves: everything so far. `after_power_loss` is harsher: of the writes to a file
since it was last synced each may be kept, lost or torn, and of the names made, moved or removed since their folder was
last synced any may be lost, the rest in any order.
"""

import os
import random
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest

LARGEST_WRITE = 50_000  # bytes taken at once, so that there are boundaries within a file
SECTOR = 512
FOLDER = -1  # in place of the number of a file
_CALLS = ("open", "write", "fsync", "replace", "unlink", "close", "mkdir")


class Call(NamedTuple):
    """A change: create, truncate, write, sync, replace, unlink, mkdir, sync folder.

    `promise` changes nothing: from there on the run relies on `data`.
    """

    what: str
    name: str = ""
    to: str = ""
    file: int = FOLDER
    data: Any = b""


class Recorder:
    """Takes the place of some functions of `os`, does what they do, and writes down what changes below a folder."""

    def __init__(self, patch: pytest.MonkeyPatch, folder: Path) -> None:
        self.folder, self.calls = folder, []
        self.real = {name: getattr(os, name) for name in _CALLS}
        self.files: dict[str, int] = {}  # name -> number
        self.opened: dict[int, tuple[str, int]] = {}  # descriptor -> name, number
        for name in _CALLS:
            patch.setattr(os, name, getattr(self, name))

    def _name(self, path: Any) -> str | None:
        try:
            return str(Path(os.fsdecode(path)).relative_to(self.folder))
        except (ValueError, TypeError):  # elsewhere, or a descriptor
            return None

    def promise(self, data: Any) -> None:
        """From here on the run relies on that."""
        self.calls.append(Call("promise", data=data))

    def open(self, path, flags, *rest, **options):
        name, descriptor = self._name(path), self.real["open"](path, flags, *rest, **options)
        if name is None:
            return descriptor
        if flags & os.O_DIRECTORY:
            self.opened[descriptor] = (name, FOLDER)
            return descriptor
        if name not in self.files:
            self.files[name] = 1 + max((call.file for call in self.calls), default=FOLDER)
            self.calls.append(Call("create", name, file=self.files[name]))
        elif flags & os.O_TRUNC:
            self.calls.append(Call("truncate", name, file=self.files[name]))
        self.opened[descriptor] = (name, self.files[name])
        return descriptor

    def write(self, descriptor, data):
        if descriptor not in self.opened:
            return self.real["write"](descriptor, data)
        part = bytes(data[:LARGEST_WRITE])
        name, file = self.opened[descriptor]
        self.calls.append(Call("write", name, file=file, data=part))
        return self.real["write"](descriptor, part)

    def fsync(self, descriptor):
        if descriptor in self.opened:
            name, file = self.opened[descriptor]
            self.calls.append(Call("sync folder" if file == FOLDER else "sync", name, file=file))
        self.real["fsync"](descriptor)

    def replace(self, path, to, **options):
        name, new = self._name(path), self._name(to)
        if name is not None:
            self.files[new] = self.files.pop(name)
            self.calls.append(Call("replace", name, new, file=self.files[new]))
        self.real["replace"](path, to, **options)

    def unlink(self, path, **options):
        name = self._name(path)
        self.real["unlink"](path, **options)
        if name is not None:
            del self.files[name]
            self.calls.append(Call("unlink", name))

    def close(self, descriptor):
        self.opened.pop(descriptor, None)
        self.real["close"](descriptor)

    def mkdir(self, path, *rest, **options):
        name = self._name(path)
        self.real["mkdir"](path, *rest, **options)
        if name is not None:
            self.calls.append(Call("mkdir", name))


@dataclass
class Disk:
    """Names (of files: a number; of folders: FOLDER) and the contents of the files."""

    names: dict[str, int] = field(default_factory=dict)
    contents: dict[int, bytes] = field(default_factory=dict)

    def put(self, folder: Path) -> None:
        """Make it below an empty folder; what is in a folder that is not there is lost."""
        for name, file in sorted(self.names.items()):
            path = folder / name
            if not path.parent.is_dir():
                continue
            if file == FOLDER:
                path.mkdir()
            else:
                path.write_bytes(self.contents.get(file, b""))


def after_kill(calls: Iterable[Call]) -> Disk:
    """All of the calls, for the operating system lives on."""
    disk = Disk()
    for call in calls:
        if call.what in ("create", "replace", "unlink", "mkdir"):
            _rename(disk.names, call)
        elif call.what in ("write", "truncate"):
            disk.contents[call.file] = _written(disk.contents.get(call.file, b""), call)
    return disk


def after_power_loss(calls: Iterable[Call], rng: random.Random) -> Disk:
    """What is durable, and of the rest what chance leaves."""
    synced, unsynced = Disk(), Disk()  # contents as the disk has them for sure, and as the process sees them
    writes: dict[int, list[tuple[int, bytes]]] = defaultdict(list)  # offset and data, since the last sync of the file
    changes: dict[str, list[Call]] = defaultdict(list)  # of names, since the last sync of their folder
    for call in calls:
        if call.what in ("create", "replace", "unlink", "mkdir"):
            changes[str(Path(call.name).parent)].append(call)
        elif call.what in ("write", "truncate"):
            before = unsynced.contents.get(call.file, b"")
            unsynced.contents[call.file] = _written(before, call)
            writes[call.file].append((len(before), call.data))
        elif call.what == "sync":
            synced.contents[call.file] = unsynced.contents.get(call.file, b"")
            writes.pop(call.file, None)
        elif call.what == "sync folder":
            for change in changes.pop(call.name, []):
                _rename(synced.names, change)
    for file, pending in writes.items():
        synced.contents[file] = _torn(synced.contents.get(file, b""), pending, rng)
    for pending_names in changes.values():
        kept = [change for change in pending_names if rng.random() < 0.5]
        for change in rng.sample(kept, len(kept)):
            _rename(synced.names, change)
    return synced


def _rename(names: dict[str, int], call: Call) -> None:
    if call.what in ("replace", "unlink"):
        names.pop(call.name, None)
    if call.what != "unlink":
        names[call.to or call.name] = call.file


def _written(before: bytes, call: Call) -> bytes:
    return b"" if call.what == "truncate" else before + call.data


def _torn(before: bytes, pending: list[tuple[int, bytes]], rng: random.Random) -> bytes:
    """Each write kept, lost, or some of its sectors lost: they are zeros."""
    found = bytearray(before)
    for offset, data in pending:
        fate = rng.choice(("kept", "lost", "torn"))
        if fate == "lost":
            continue
        found.extend(bytes(max(0, offset + len(data) - len(found))))
        for start in range(0, len(data), SECTOR):
            if fate == "kept" or rng.random() < 0.5:
                found[offset + start : offset + start + SECTOR] = data[start : start + SECTOR]
    return bytes(found)
