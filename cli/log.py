"""`log.txt` beside a run: what `track` prints, with the time, added at the end."""

import os
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

LOG_NAME = "log.txt"
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Log:
    """Adds lines to a file as they come; where that is impossible it says so once, and training goes on.

    Lines are kept back until `open`: before a run holds its folder, that may be another's.
    """

    def __init__(self, path: Path, *, tell: Callable[[str], None]) -> None:
        self.path, self._tell = path, tell
        self._waiting: list[bytes] | None = []
        self._told = False

    def open(self) -> None:
        """Write what was kept back, and from now on every line at once."""
        waiting, self._waiting = self._waiting, None
        self._append(b"".join(waiting or ()))

    def add(self, text: str) -> None:
        """Add a text; each of its lines gets the time."""
        now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        data = "".join(f"{now}  {line}\n" for line in text.splitlines()).encode(errors="backslashreplace")
        if self._waiting is None:
            self._append(data)
        else:
            self._waiting.append(data)

    def _append(self, data: bytes) -> None:
        try:
            _append(self.path, data)
        except OSError as error:
            if not self._told:
                self._told = True
                self._tell(f"{self.path} could not be written ({error.strerror}); the run does not need it.")


def _append(path: Path, data: bytes) -> None:
    """Add the bytes to a regular file, never through a link; in one call, so that a line is whole or not there."""
    descriptor = os.open(path, _FLAGS, 0o666)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(0, "it is not a regular file", str(path))
        os.write(descriptor, data)
    finally:
        os.close(descriptor)
