"""Ending cleanly on Ctrl-C and SIGTERM: the first signal sets a flag, the second ends the process at once."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass
class StopRequest:
    """The signal that asked the run to stop, or None."""

    signal: int | None = None


_in_progress: list[StopRequest] = []


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Catch SIGINT and SIGTERM while the context lasts; also where a shell started the process ignoring them.

    The first of either kind is noted; the next, of either kind, ends the process. Outside the main thread Python cannot
    install handlers: the request then stays empty.
    """
    request, caught = StopRequest(), False

    def handle(number: int, _: FrameType | None) -> None:
        nonlocal caught
        if not caught:
            caught, request.signal = True, request.signal or number
            return
        # only now, not at the first: Python drops a signal that waits for its handler when there is none any more
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    try:
        before = {number: signal.signal(number, handle) for number in _SIGNALS}
    except ValueError:
        yield request
        return
    _in_progress.append(request)
    try:
        yield request
    finally:
        _in_progress.remove(request)
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: not one of Python's


def stop_with_parent() -> None:
    """Stop this process as SIGTERM does when its standard input, a pipe that its parent holds, closes: it has died.

    It holds for kill -9 of the parent too, and on every system. A signal that comes as well, such as that of a batch
    system which ends all processes of a job, is no second one.
    """

    def wait() -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        _ask_to_stop()

    threading.Thread(target=wait, name="stop with parent", daemon=True).start()


def _ask_to_stop() -> None:
    requests = tuple(_in_progress)
    for request in requests:
        request.signal = request.signal or signal.SIGTERM
    if not requests:
        os.kill(os.getpid(), signal.SIGTERM)
