"""Notices that do not come thick and fast."""

import time
from collections.abc import Callable

NOTICE_EVERY_S = 60.0


class OnceAMinute:
    """Passes a notice on, at most one a minute; those in between are dropped.

    Args:
        notice: receives the notices.
        monotonic: tells the time in seconds.
    """

    def __init__(self, notice: Callable[[str], None], monotonic: Callable[[], float] = time.monotonic) -> None:
        self._notice, self._monotonic = notice, monotonic
        self._last: float | None = None

    def __call__(self, text: str) -> None:
        """Give the notice, if the last one is a minute ago."""
        now = self._monotonic()
        if self._last is None or now - self._last >= NOTICE_EVERY_S:
            self._last = now
            self._notice(text)
