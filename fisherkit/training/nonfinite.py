"""In which layer numbers first went wrong, where a loss has become infinite or NaN."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@torch.no_grad()
def first_non_finite(model: nn.Module, forward: Callable[[], object] | None) -> str:
    """What is not finite first, as a clause: weights of layers, else outputs of a layer; empty where all is finite.

    Args:
        forward: calls the model on the images of the loss; what that does to buffers is undone. None where the batch
            is no more.
    """
    weights = _non_finite("weights", model.named_parameters())
    if weights or forward is None:
        return weights
    return _in_the_pass(model, forward)


def _non_finite(what: str, named: Iterable[tuple[str, Tensor]]) -> str:
    """The first layer in which some are not finite, and how many more there are."""
    bad = dict.fromkeys(_layer(name) for name, values in named if not _finite(values))
    more = f" and of {len(bad) - 1} more" if len(bad) > 1 else ""
    return f"the {what} of layer {next(iter(bad))!r}{more} are not finite" if bad else ""


def _in_the_pass(model: nn.Module, forward: Callable[[], object]) -> str:
    """The first layer, in the order in which they finish, whose outputs are not finite; or its inputs already."""
    found: list[str] = []

    def look(name: str, inputs: Any, outputs: Any) -> None:
        if found or all(map(_finite, _tensors(outputs))):
            return
        side = "outputs" if all(map(_finite, _tensors(inputs))) else "inputs"
        found.append(f"the weights are finite, the {side} of layer {name or '(model)'!r} are not")

    with _copied_buffers(model), _watched(model, look):
        forward()
    return found[0] if found else ""


@contextmanager
def _watched(model: nn.Module, look: Callable[[str, Any, Any], None]) -> Iterator[None]:
    """`look(name, inputs, outputs)` after the forward pass of every module."""

    def hook(name: str) -> Callable[..., None]:
        return lambda module, inputs, outputs: look(name, inputs, outputs)

    handles = [module.register_forward_hook(hook(name)) for name, module in model.named_modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _copied_buffers(model: nn.Module) -> Iterator[None]:
    """Copies in the place of the buffers: a backward pass that is still to come refuses any that were written to."""
    saved = [(module, dict(module._buffers)) for module in model.modules()]
    try:
        for module, buffers in saved:
            module._buffers.update({name: None if b is None else b.clone() for name, b in buffers.items()})
        yield
    finally:
        for module, buffers in saved:
            module._buffers.update(buffers)


def _finite(values: Tensor) -> bool:
    return bool(torch.isfinite(values).all())


def _tensors(values: Any) -> Iterator[Tensor]:
    """The tensors in what a module takes or gives."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, Mapping):
        for value in values.values():
            yield from _tensors(value)
    elif isinstance(values, tuple | list):
        for value in values:
            yield from _tensors(value)


def _layer(name: str) -> str:
    return name.rpartition(".")[0] or "(model)"
