"""Before several processes measure together: whether they are about to measure the same, and in what passes."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from .inputs import Batch
from .layers import real
from .sizes import Sizes

SAME = 1e-6  # relative; other hardware may round a norm in another way


@dataclass(frozen=True)
class Offer:
    """What one process is about to measure."""

    facts: dict[str, object]  # what the caller gave -> its value, or a norm of it
    sizes: Sizes
    fixed: bool = False  # whether the caller gave the batch size
    buffers: dict[str, Tensor] = field(default_factory=dict)


def agreed(offers: Sequence[Offer]) -> Sizes:
    """The passes that fit all processes; a batch size that the caller of one of them gave comes first.

    Raises:
        ValueError: the processes were given different things.
    """
    for rank, other in enumerate(offers):
        for name, value in offers[0].facts.items():
            if not _same(value, other.facts[name]):
                raise ValueError(
                    f"{name} must be the same in every process; got {value!r} in process 0 and {other.facts[name]!r} "
                    f"in process {rank}. Batches are shared out here: give every process the same model and all images "
                    "(no DistributedSampler). Or distributed=False: each process measures what it is given, alone."
                )
    some = [offer.sizes for offer in offers if offer.fixed] or [offer.sizes for offer in offers]
    limits = [sizes.limit for sizes in some if sizes.limit is not None]
    return Sizes(min(sizes.batch for sizes in some), min(limits, default=None))


def _same(one: object, other: object) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=SAME) or (math.isnan(one) and math.isnan(other))
    return one == other


def facts_of(model: nn.Module, first: Batch, images: int | None) -> dict[str, object]:
    """The model and the images, by norms.

    Args:
        model: its parameters only: see `take_buffers`.
        first: the first images.
        images: how many in all, where that is known.
    """
    given = first.inputs.values() if isinstance(first.inputs, dict) else [first.inputs]
    return {
        "model's parameters": [name for name, _ in model.named_parameters()],
        "the norm of the model's parameters": norm_of(model.parameters()),
        "number of images": images,
        "the norm of the first images": norm_of(given),
    }


def norm_of(tensors: Iterable[Tensor]) -> float:
    """The Euclidean norm of all numbers together."""
    total = 0.0
    for tensor in tensors:
        dense = real(tensor.detach().to_dense())
        numbers = dense if dense.is_floating_point() else dense.double()
        total += float(torch.linalg.vector_norm(numbers, dtype=torch.float64)) ** 2
    return math.sqrt(total)


def buffers_of(model: nn.Module) -> dict[str, Tensor]:
    """Copies on the CPU, to be sent."""
    return {name: buffer.detach().cpu() for name, buffer in model.named_buffers(remove_duplicate=False)}


def take_buffers(model: nn.Module, buffers: dict[str, Tensor]) -> None:
    """Those of the first process in place of one's own, as DistributedDataParallel does before its next step.

    Each process has BatchNorm statistics of its own images until then. The tensors are replaced, not written into:
    a graph that the caller still holds may need them.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    for name, value in buffers.items():
        path, _, local = name.rpartition(".")
        own = modules[path]._buffers[local]
        if own is not None and not torch.equal(own.cpu(), value):
            modules[path]._buffers[local] = value.to(own.device)
