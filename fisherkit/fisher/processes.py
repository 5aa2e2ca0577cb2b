"""Several processes (torch.distributed): each measures its share of the batches, all return the same result.

Every process reads all batches and measures those whose number is its own rank modulo the number of processes. What was
measured is exchanged in float64 and tallied by every process in the order of the batches, as one process does: the
result is that of one process for the same batches, and so is where it stops by `rel_se`.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch.distributed as dist

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """The processes that measure together; this one alone by default."""

    rank: int = 0
    count: int = 1
    local: int = 1  # on this machine

    def run(self, work: Callable[[], T]) -> list[T]:
        """What `work` returns in every process, which all must make this call.

        Raises:
            Exception: the error of this process.
            RuntimeError: that of another one; the message names it.
        """
        if self.count == 1:
            return [work()]
        own: Exception | None = None
        try:
            answer: _Answer[T] = _Answer(value=work())
        except Exception as error:  # of any kind: the others must not wait for an answer that never comes
            own, answer = error, _Answer(error=f"{type(error).__name__}: {error}")
        answers: list[Any] = [None] * self.count
        dist.all_gather_object(answers, answer)
        if own is not None:
            raise own
        for rank, other in enumerate(answers):
            if other.error is not None:
                raise RuntimeError(f"process {rank} of {self.count} failed, so this one stops too: {other.error}")
        return [other.value for other in answers]


@dataclass(frozen=True)
class _Answer(Generic[T]):
    value: T | None = None
    error: str | None = None


def processes(*, distributed: bool) -> Processes:
    """Those of the default group of torch.distributed, where it is initialised and wanted."""
    if not distributed or not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return Processes()
    count = dist.get_world_size()
    return Processes(dist.get_rank(), count, int(os.environ.get("LOCAL_WORLD_SIZE", count)))


@dataclass(frozen=True)
class _Share(Generic[T]):
    """What one process did since the last exchange."""

    done: dict[int, T]  # number of the batch -> what it gave
    seen: int  # batches so far, of any process
    ended: bool


def in_order(work: Iterator[T | None], together: Processes, *, often: bool, send: Callable[[T], T]) -> Iterator[T]:
    """What all processes' batches gave, in the order of the batches, in every process.

    Args:
        work: an item for every batch; None for those of other processes.
        together: who exchanges what they have.
        send: makes an item ready to be sent.
        often: exchange after every round of one batch a process, rather than at the end: whoever asks for the next
            item may then stop early, and must do so in every process after the same item.

    Raises:
        ValueError: the processes have different numbers of batches.
    """
    seen = 0
    alone = together.count == 1

    def share() -> _Share[T]:
        nonlocal seen
        done: dict[int, T] = {}
        for item in work:
            if item is not None:
                done[seen] = item if alone else send(item)
            seen += 1
            if alone or (often and seen % together.count == 0):
                return _Share(done, seen, ended=False)
        return _Share(done, seen, ended=True)

    ended = False
    while not ended:
        shares = together.run(share)
        if len({(s.seen, s.ended) for s in shares}) > 1:
            raise ValueError(
                f"images must give every process the same batches; got {', '.join(str(s.seen) for s in shares)} of "
                "them. A DistributedSampler gives each process others: pass all images to every process."
            )
        done = {number: item for s in shares for number, item in s.done.items()}
        yield from (done[number] for number in sorted(done))
        ended = shares[0].ended
