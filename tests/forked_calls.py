"""Functions in processes of their own, forked from the one that has imported torch (see forked_runs)."""

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import forked_runs  # noqa: F401  (says what the server of forks imports)

DEADLINE_S = 300.0


@contextmanager
def forked_call(function: Callable[..., None], *arguments: Any) -> Iterator[tuple[BaseProcess, Connection]]:
    """`function(*arguments, pipe)`, of a module, in a process that is killed at the end if it still runs."""
    context = multiprocessing.get_context("forkserver")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=function, args=(*arguments, sender))
    process.start()
    sender.close()
    try:
        yield process, receiver
    finally:
        process.kill()
        process.join()
        receiver.close()


def told_by(pipe: Connection) -> Iterator[Any]:
    """What a process tells until it ends."""
    while True:
        assert pipe.poll(DEADLINE_S), f"nothing came for {DEADLINE_S:.0f} s"
        try:
            yield pipe.recv()
        except (EOFError, ConnectionResetError):
            return
