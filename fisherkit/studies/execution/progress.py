"""How far runs are, from what they print, and how long the rest will take."""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fisherkit.studies.execution.process import LOG_NAME

_HOST = re.compile(rb"^-- .*: started by process [0-9]+ on ([^,\n]+),", re.MULTILINE)
_EPOCH = re.compile(rb"^epoch +([0-9]{1,9})/([0-9]{1,9})(?= )", re.MULTILINE)
_TAIL = 64 * 1024


@dataclass
class RunLog:
    """The log of a run; it is read again only where it has grown."""

    folder: Path
    _size: int = 0
    _epoch: int = 0

    @property
    def size(self) -> int:
        """Bytes; 0 where there is none yet."""
        try:
            return (self.folder / LOG_NAME).stat().st_size
        except OSError:
            return 0

    def epoch(self) -> int:
        """Epochs completed by the last line that says so."""
        size = self.size
        if size != self._size:
            self._epoch = last_epoch(self._tail(size)) or self._epoch
            self._size = size
        return self._epoch

    def host(self, start: int) -> str | None:
        """The machine that the run was started on, by the first line from that byte on."""
        match = _HOST.search(self._read(start, _TAIL))
        return match[1].decode(errors="replace") if match else None

    def _tail(self, size: int) -> bytes:
        return self._read(max(0, size - _TAIL), -1)

    def _read(self, start: int, length: int) -> bytes:
        try:
            with (self.folder / LOG_NAME).open("rb") as file:
                file.seek(start)
                return file.read(length)
        except OSError:
            return b""


def last_epoch(text: bytes) -> int | None:
    """The number N of the last whole line `epoch N/M ...` in a log; None where there is none."""
    whole, _, _ = text.rpartition(b"\n")
    found = [int(match[1]) for match in _EPOCH.finditer(whole) if int(match[1]) <= int(match[2])]
    return found[-1] if found else None


@dataclass
class Pace:
    """Epochs trained in this session, and the seconds that runs took for them."""

    epochs: int = 0
    seconds: float = 0.0

    def add(self, epochs: int, seconds: float) -> None:
        """A run, or what there is of it."""
        self.epochs += max(0, epochs)
        self.seconds += seconds

    @property
    def epoch_s(self) -> float | None:
        """Seconds a run takes for an epoch, its start included; None before the first."""
        return self.seconds / self.epochs if self.epochs else None


@dataclass
class Started:
    """A run that goes on: from which epoch, and since when its log grows (None: not yet), on which machine."""

    log: RunLog
    first_epoch: int
    first_size: int = field(init=False)
    since: float | None = None
    host: str | None = None

    def __post_init__(self) -> None:
        self.first_size = self.log.size

    def look(self, now: float | None = None) -> bool:
        """Whether it has begun."""
        if self.since is None and self.log.size > self.first_size:
            self.since = time.monotonic() if now is None else now
            self.host = self.log.host(self.first_size)
        return self.since is not None

    @property
    def done(self) -> int:
        """Epochs behind it."""
        return max(self.first_epoch, self.log.epoch())

    def add_to(self, pace: Pace) -> None:
        """Count what it has trained."""
        if self.since is not None:
            pace.add(self.done - self.first_epoch, time.monotonic() - self.since)


def time_left(to_train: Sequence[int], *, epoch_s: float, at_once: int) -> float:
    """Seconds until runs with so many epochs each are through, so many of them at once.

    All epochs spread over the slots, or the longest run, whichever takes longer; waits for a parent are not counted.
    """
    return epoch_s * max(sum(to_train) / max(1, at_once), max(to_train, default=0))
