"""Commands that torchrun starts in several processes: one group, and one of them speaks."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

from .options import resolve_device


def started_together() -> int:
    """How many processes torchrun started, this one among them."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def together(device: str) -> Iterator[str]:
    """The device of this process, as a member of the group of all; only the first process prints.

    The group exchanges results between CPUs (gloo), whatever they are measured on.

    Raises:
        ValueError: the device is not one for several processes.
    """
    if started_together() == 1:
        yield resolve_device(device)
        return
    import torch
    import torch.distributed as dist

    own = _own_device(resolve_device(device))
    if own.startswith("cuda"):
        torch.cuda.set_device(own)
    dist.init_process_group("gloo")
    try:
        if dist.get_rank() == 0:
            yield own
            return
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            yield own
    finally:
        dist.destroy_process_group()


def _own_device(device: str) -> str:
    import torch

    if device.startswith("cuda:"):
        raise ValueError(f"device must be cuda, without a number, for several processes: a GPU each; got {device!r}.")
    if device != "cuda":
        return device
    number, there = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if number >= there:
        raise ValueError(f"--nproc-per-node must be at most the number of GPUs here, {there}; or use --device cpu.")
    return f"cuda:{number}"


def refuse_several(command: str, instead: str) -> None:
    """For commands that are one process.

    Raises:
        ValueError: torchrun started several.
    """
    if started_together() > 1:
        raise ValueError(f"`fisherkit {command}` runs in one process; torchrun started {started_together()}. {instead}")
