"""Batches measured in passes that fit into memory: where it runs out, the images are halved and measured again."""

import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

from .inputs import Batch

T = TypeVar("T")
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")  # in RuntimeErrors


def out_of_memory(error: BaseException) -> bool:
    """Whether the memory of the CPU or of a device ran out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in OUT_OF_MEMORY)


@dataclass(frozen=True, order=True)
class Reduced:
    """Passes made smaller because memory ran out."""

    limit: int  # images of a pass from then on
    failed: int  # images of the smallest pass that did not fit


class Passes(Generic[T]):
    """Measures batches in passes of at most `limit` images, halved whenever memory runs out.

    Args:
        measure: of a batch and the position of its first image.
        limit: images; None for no limit.
        divisible: whether a batch may be measured in parts.
        explain: of the images of a pass for which memory ran out though they cannot be divided, what to say.
    """

    def __init__(
        self, measure: Callable[[Batch, int], T], limit: int | None, *, divisible: bool, explain: Callable[[int], str]
    ) -> None:
        self.measure, self.limit, self.divisible, self.explain = measure, limit, divisible, explain
        self.reduced: Reduced | None = None

    def over(self, batch: Batch, start: int) -> Iterator[T]:
        """What `measure` returns for one batch, or for each of its parts.

        Raises:
            MemoryError: for a single image, or a batch that cannot be divided.
        """
        end = start + len(batch)
        position = start
        while position < end:
            for part in self._parts(batch, position - start):
                measured = self._try(part, position)
                if measured is None:
                    break
                yield measured
                position += len(part)

    def _parts(self, batch: Batch, done: int) -> Iterator[Batch]:
        """The rest of a batch in parts of nearly equal size."""
        left = len(batch) - done
        count = 1 if self.limit is None or not self.divisible else -(-left // self.limit)
        for k in range(count):
            yield batch.between(done + left * k // count, done + left * (k + 1) // count)

    def _try(self, part: Batch, position: int) -> T | None:
        """None where memory ran out; the limit is lower then."""
        try:
            return self.measure(part, position)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            if len(part) == 1 or not self.divisible:
                raise MemoryError(self.explain(len(part))) from error
        # here the error and with it the frames that hold the pass's tensors are gone
        self.limit = len(part) // 2
        self.reduced = Reduced(self.limit, len(part))
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        return None
