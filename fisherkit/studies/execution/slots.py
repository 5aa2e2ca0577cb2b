"""Places where runs go: so many at a time on this machine, or as many as a cluster takes."""

import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

from fisherkit.studies.execution.unit import Slot


@runtime_checkable
class Slots(Protocol):
    """Where the driver takes a place for each run that it submits."""

    def take(self) -> Slot | None:
        """A free place, or None."""
        ...

    def give_back(self, slot: Slot) -> None:
        """The run there has ended."""
        ...

    def lost(self) -> str | None:
        """Why nothing will be heard any more of what runs in the places, as a sentence; None while they are there."""
        ...


class LocalSlots:
    """The places of one machine."""

    def __init__(self, places: Sequence[Slot]) -> None:
        if not places:
            raise ValueError("places must be at least one; got none.")
        self.count = len(places)
        self._free = deque(places)

    def take(self) -> Slot | None:
        """The place that is free for longest."""
        return self._free.popleft() if self._free else None

    def give_back(self, slot: Slot) -> None:
        """It is free again."""
        self._free.append(slot)

    def lost(self) -> None:
        """They are on the machine of the driver."""


class ClusterSlots:
    """No limit: all that can run is submitted, in order, so that a cluster that grows on demand sees the demand."""

    def __init__(self, address: str, connected: Callable[[], bool]) -> None:
        self._address, self._connected = address, connected

    def take(self) -> Slot | None:
        """The place that the cluster's worker is."""
        return Slot("cluster")

    def give_back(self, slot: Slot) -> None:
        """Nothing to do."""

    def lost(self) -> str | None:
        """The connection to the scheduler."""
        if self._connected():
            return None
        return (
            f"the connection to the dask scheduler at {self._address} is lost, and its runs end after a checkpoint. "
            "With a scheduler and workers again, the same command goes on from there."
        )


def local_places(
    count: int | None,
    *,
    device: str,
    threads: int | None,
    cores: int,
    gpus: int,
    environment: Mapping[str, str] = os.environ,
) -> tuple[Slot, ...]:
    """So many places on this machine; by default as many as it has room for.

    On `cuda` one for each GPU, which is the only one that the run sees; more places than GPUs share them in turn. On
    the CPU one for every `threads` cores, and a single one where the runs take all cores (`threads` None). A device
    with a number (`cuda:1`) is left to the run, with one place.

    Raises:
        ValueError: the device is `cuda`, and there is no GPU.
    """
    if device != "cuda":
        room = max(1, cores // threads) if device == "cpu" and threads else 1
        return tuple(Slot(f"{device} slot {number}") for number in range(count or room))
    if gpus < 1:
        raise ValueError("device must be cpu where no GPU is visible; got 'cuda'. Give --device cpu.")
    visible = _visible(environment.get("CUDA_VISIBLE_DEVICES"), gpus)
    names = [visible[number % gpus] for number in range(count or gpus)]
    return tuple(Slot(f"GPU {name}", {"CUDA_VISIBLE_DEVICES": name}) for name in names)


def _visible(text: str | None, gpus: int) -> list[str]:
    """The names of the GPUs that this process sees; a batch system may have given it some of the machine's only."""
    names = [name.strip() for name in text.split(",")] if text else []
    return names[:gpus] if len(names) >= gpus else [str(number) for number in range(gpus)]
