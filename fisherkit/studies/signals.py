"""Ending cleanly on Ctrl-C and SIGTERM: the first signal sets a flag, the second ends the process at once."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass
class StopRequest:
    """The signal that asked the run to stop, or None."""

    signal: int | None = None


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Catch SIGINT and SIGTERM while the context lasts; also where a shell started the process ignoring them.

    Outside the main thread Python cannot install handlers: the request then stays empty.
    """
    request = StopRequest()

    def handle(number: int, _: FrameType | None) -> None:
        request.signal = number
        signal.signal(number, signal.SIG_DFL)

    try:
        before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:
        yield request
        return
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop_with_parent() -> None:
    """Send this process SIGTERM when its standard input, a pipe that its parent holds, closes: the parent has died.

    It holds for kill -9 of the parent too, and on every system.
    """

    def wait() -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="stop with parent", daemon=True).start()
