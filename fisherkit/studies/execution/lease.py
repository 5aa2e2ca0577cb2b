"""Whether the driver of a study is still there, as seen from anywhere that shares its folder.

A process started by another machine's worker has no pipe to the driver. So the driver holds a file, with a token of its
own, and touches it every few seconds; who runs something for it looks at the file, and stops when the file is gone,
holds another token, or was not touched for long. Clocks of two machines are never compared: a watcher measures, by its
own clock, for how long the file has not changed.
"""

import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from fisherkit.storage import atomic_write

LEASE_NAME = ".driver"
TOUCH_EVERY_S = 5.0
PATIENCE_S = 180.0  # network file systems may show a change a minute late


@dataclass(frozen=True)
class Lease:
    """The file of a driver; picklable."""

    path: str
    token: str

    def watch(self, *, patience_s: float = PATIENCE_S, clock: Callable[[], float] = time.monotonic) -> "Watch":
        """Begin to look at it."""
        return Watch(self, patience_s, clock)


@dataclass
class Watch:
    """One watcher's view of a lease."""

    lease: Lease
    patience_s: float
    clock: Callable[[], float]
    _seen: int = -1
    _changed: float = field(init=False)

    def __post_init__(self) -> None:
        self._changed = self.clock()

    def ended(self) -> bool:
        """Whether the driver has stopped, has been replaced, or was not heard of for longer than the patience."""
        try:
            # opened, not only looked up: a network file system asks its server then
            with open(self.lease.path, "rb") as file:
                token, touched = file.read(100).decode(errors="replace"), os.fstat(file.fileno()).st_mtime_ns
        except FileNotFoundError:
            return True
        except OSError:  # such as a stale handle of a network file system: not heard of, for now
            token, touched = self.lease.token, self._seen
        if token != self.lease.token:
            return True
        now = self.clock()
        if touched != self._seen:
            self._seen, self._changed = touched, now
        return now - self._changed > self.patience_s


@dataclass
class HeldLease:
    """The driver's side of a lease."""

    lease: Lease
    _touched: float = field(default_factory=time.monotonic)

    def touch(self) -> None:
        """Say that the driver is there, if it is time to."""
        now = time.monotonic()
        if now - self._touched >= TOUCH_EVERY_S:
            self._touched = now
            with suppress(OSError):  # seen as silence; those who run something are patient
                os.utime(self.lease.path)

    def end(self) -> None:
        """Tell everybody to stop."""
        Path(self.lease.path).unlink(missing_ok=True)


@contextmanager
def hold_lease(folder: Path) -> Iterator[HeldLease]:
    """Put the lease into a folder, which takes it from whoever held it before."""
    lease = Lease(str(folder / LEASE_NAME), secrets.token_hex(8))
    atomic_write(Path(lease.path), lease.token.encode())
    held = HeldLease(lease)
    try:
        yield held
    finally:
        held.end()
