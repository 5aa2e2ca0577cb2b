"""Events: what happens to a training once, at the start of an epoch."""

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Event:
    """Something that happens at the start of an epoch, before its first step."""

    epoch: int
    name = "event"

    def __post_init__(self) -> None:
        if self.epoch < 0:
            raise ValueError(f"epoch of {self.name} must be a whole number >= 0; got {self.epoch!r}.")

    @property
    def call(self) -> str:
        """The name with its arguments, without the epoch."""
        arguments = ",".join(repr(getattr(self, field.name)) for field in fields(self) if field.name != "epoch")
        return f"{self.name}({arguments})" if arguments else self.name

    def __str__(self) -> str:
        return f"{self.call}:{self.epoch}"


@dataclass(frozen=True)
class ShrinkPerturb(Event):
    """theta <- shrink theta + perturb theta_fresh, with a freshly initialised network.

    Ash and Adams, On Warm-Starting Neural Network Training (NeurIPS 2020), as in the authors' code:
    parameters only; buffers (batch-norm statistics) become the fresh network's.
    """

    shrink: float = 0.4
    perturb: float = 0.1
    name = "shrink_perturb"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.shrink <= 1:
            raise ValueError(f"shrink of shrink_perturb must be from 0 to 1; got {self.shrink!r}.")
        if not 0 <= self.perturb < math.inf:
            raise ValueError(f"perturb of shrink_perturb must be finite and >= 0; got {self.perturb!r}.")

    @torch.no_grad()
    def apply(self, model: nn.Module, fresh_model: nn.Module) -> None:
        """Change the model in place; raises ValueError where the two networks differ in names or shapes."""
        fresh_parameters = _matching(dict(model.named_parameters()), dict(fresh_model.named_parameters()))
        fresh_buffers = _matching(dict(model.named_buffers()), dict(fresh_model.named_buffers()))
        for parameter, fresh in fresh_parameters:
            parameter.mul_(self.shrink).add_(fresh.to(parameter), alpha=self.perturb)
        for buffer, fresh in fresh_buffers:
            buffer.copy_(fresh)


def _matching(tensors: dict[str, Tensor], fresh: dict[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Pairs of the same name; raises ValueError where a name or a shape has no match."""
    for name in tensors | fresh:
        shapes = [tuple(side[name].shape) if name in side else None for side in (tensors, fresh)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"fresh_model must have the parameters and buffers of the model, with {name!r} "
                f"of shape {shapes[0]}; got {shapes[1]}."
            )
    return [(tensor, fresh[name]) for name, tensor in tensors.items()]


@dataclass(frozen=True)
class LrRestart(Event):
    """The learning-rate schedule begins anew."""

    name = "lr_restart"


@dataclass(frozen=True)
class LrScale(Event):
    """The learning rate is multiplied by the factor, from this epoch on."""

    factor: float
    name = "lr_scale"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.factor < math.inf:
            raise ValueError(f"factor of lr_scale must be finite and > 0; got {self.factor!r}.")
