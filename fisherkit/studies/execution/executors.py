"""`--executor local:4` and `--executor dask:tcp://host:8786` as an executor of `concurrent.futures` with its slots."""

import os
import re
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fisherkit.studies.execution.slots import ClusterSlots, LocalSlots, Slots, local_places
from fisherkit.studies.execution.unit import Slot

_FORMS = "local, local:SLOTS, dask, or dask:ADDRESS (tcp://HOST:8786, or the scheduler's FILE.json)"
_ADDRESS = re.compile(r"([a-z]+://)?(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}")


@dataclass(frozen=True)
class ExecutorChoice:
    """Where the runs of a study are to run, as a person writes it."""

    kind: str  # local, dask
    slots: int | None = None
    address: str | None = None

    @classmethod
    def parse(cls, text: str) -> "ExecutorChoice":
        """Read `local`, `local:4`, `dask`, `dask:tcp://host:8786`, `dask:/shared/scheduler.json`.

        Raises:
            ValueError: it is none of these.
        """
        kind, colon, rest = text.strip().partition(":")
        if kind not in ("local", "dask") or (colon and not rest):
            raise ValueError(f"executor must be {_FORMS}; got {text!r}.")
        if kind == "local":
            if rest and not re.fullmatch(r"[1-9][0-9]{0,3}", rest):
                raise ValueError(
                    f"executor must have at least one slot and at most 9999, such as local:4; got {text!r}."
                )
            return cls("local", slots=int(rest) if rest else None)
        if rest.isdigit():
            raise ValueError(
                f"executor must name a scheduler after dask:, such as dask:tcp://host:8786; got {text!r}. "
                f"For {rest} runs at a time on this machine give local:{rest}."
            )
        if rest and not rest.endswith(".json") and not _ADDRESS.fullmatch(rest):
            raise ValueError(
                "executor must have the scheduler's address as HOST:PORT or PROTOCOL://HOST:PORT, or its file "
                f"FILE.json, after dask:; got {text!r}."
            )
        return cls("dask", address=rest or None)


@dataclass(frozen=True)
class Workplace:
    """An executor, the slots that go with it, and what it is, in a few words."""

    executor: Executor
    slots: Slots
    description: str


@contextmanager
def open_workplace(choice: ExecutorChoice, *, device: str, threads: int | None) -> Iterator[Workplace]:
    """The executor that was chosen, for runs on that device with so many threads; closed at the end.

    Raises:
        ValueError: the device is not there.
        ModuleNotFoundError: dask was chosen and is not installed; the message has the command.
        ConnectionError: nobody answers at the scheduler's address.
    """
    if choice.address is not None:
        with _cluster(choice.address, device) as place:
            yield place
        return
    places = local_places(choice.slots, device=device, threads=threads, cores=_cores(), gpus=_gpus(device))
    made = _thread_pool(places) if choice.kind == "local" else _local_cluster(places)
    with made as executor:
        yield Workplace(executor, LocalSlots(places), f"{len(places)} at a time on this machine")


@contextmanager
def _thread_pool(places: tuple[Slot, ...]) -> Iterator[Executor]:
    # a thread waits for each run's process; the driver submits no more runs than there are places
    with ThreadPoolExecutor(max_workers=len(places), thread_name_prefix="fisherkit-run") as pool:
        yield pool


@contextmanager
def _local_cluster(places: tuple[Slot, ...]) -> Iterator[Executor]:
    distributed = _distributed()
    cluster = distributed.LocalCluster(
        n_workers=len(places), threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0", memory_limit=None
    )
    with cluster, distributed.Client(cluster) as client:
        yield client.get_executor(pure=False)


@contextmanager
def _cluster(address: str, device: str) -> Iterator[Workplace]:
    distributed = _distributed()
    of_file = address.endswith(".json")
    if of_file and not Path(address).exists():  # the client would wait for it without end
        raise ConnectionError(f"{address} is not there. Start `dask scheduler --scheduler-file {address}` first.")
    try:
        client = distributed.Client(**({"scheduler_file": address} if of_file else {"address": address}))
    except OSError as error:
        raise ConnectionError(
            f"no dask scheduler answers at {address}: {error}. Start one with `dask scheduler`, or give its address."
        ) from error
    resources = {"resources": {"GPU": 1}} if device.startswith("cuda") else {}
    with client:
        workers = len(client.nthreads())
        description = f"on the dask cluster at {address} ({workers} workers now)"
        if resources:
            description += "; each run waits for a worker started with --resources GPU=1"
        # a scheduler forgets a client whose connection breaks: even if it comes back, its results never will
        slots = ClusterSlots(address, connected=lambda: client.status == "running")
        yield Workplace(client.get_executor(pure=False, **resources), slots, description)


def _distributed() -> Any:
    try:
        import distributed
    except ModuleNotFoundError:
        raise ModuleNotFoundError("--executor dask needs dask: pip install 'fisherkit[dask]'") from None
    return distributed


def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _gpus(device: str) -> int:
    if device != "cuda":
        return 0
    import torch

    return torch.cuda.device_count()
