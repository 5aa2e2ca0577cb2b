"""Bare parameters that are broadcast over the images: class tokens, position embeddings, queries.

A parameter of shape [1, ...] that the forward adds, multiplies or expands to the images can be given a copy for
each image, [images, ...]: the same outputs, and the gradient of copy i is the gradient of image i. Whether that
is so in this model is not read off its code but tried on the survey's images.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .inputs import Inputs, call, first_tensor
from .layers import Layer

SAME = 1e-4  # relative, of float32 sums in another order

Receive = Callable[[Tensor], None]


class _Copies(torch.autograd.Function):
    """A copy of each value for each image; their gradients go to `receive`, [images, numbers of all of them]."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, receive: Receive, images: int, *values: Tensor) -> tuple[Tensor, ...]:
        ctx.receive, ctx.values = receive, len(values)
        return tuple(value.expand(images, *value.shape[1:]).clone() for value in values)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        ctx.receive(torch.cat([g.flatten(1) for g in grads], 1))
        return (None,) * (3 + ctx.values)


@contextmanager
def copied(layer: Layer, images: int, anchor: Tensor, receive: Receive) -> Iterator[None]:
    """The layer's parameters as a copy for each image, hanging from `anchor`; then themselves again."""
    own = layer.module._parameters
    values = [parameter.detach() for parameter in layer.parameters.values()]
    copies = _Copies.apply(anchor, receive, images, *values)  # type: ignore[no-untyped-call]
    try:
        own.update(zip(layer.parameters, copies, strict=True))
        yield
    finally:
        own.update(layer.parameters)


def broadcast_layers(model: nn.Module, inputs: Inputs, outputs: Tensor, candidates: Sequence[Layer]) -> frozenset[str]:
    """Those of the layers whose parameters can be copied for each image.

    With the copies the outputs are the same, an image's outputs have no gradient in another image's copies, and the
    copies' gradients sum to the parameters'.
    """
    return frozenset(layer.name for layer in candidates if _shaped(layer) and _copies(model, inputs, outputs, layer))


def _shaped(layer: Layer) -> bool:
    return all(
        p.dim() > 1 and p.shape[0] == 1 and p.is_floating_point() and layer.module._parameters.get(name) is p
        for name, p in layer.parameters.items()
    )


def _copies(model: nn.Module, inputs: Inputs, outputs: Tensor, layer: Layer) -> bool:
    images = len(first_tensor(inputs))
    if images < 2:
        return False
    anchor = torch.zeros((), device=outputs.device, requires_grad=True)
    arrived: list[Tensor] = []
    with ExitStack() as stack:
        stack.enter_context(copied(layer, images, anchor, arrived.append))
        try:
            again = call(model, inputs)
        except (RuntimeError, ValueError, TypeError, IndexError):
            return False  # the forward wants exactly one
        if again.shape != outputs.shape or not again.requires_grad or not _close(again, outputs):
            return False
        weights = torch.linspace(1, 2, outputs.numel(), dtype=outputs.dtype, device=outputs.device).view_as(outputs)
        for image in range(images):
            torch.autograd.grad(again, anchor, _only(image, weights), retain_graph=True, allow_unused=True)
    parameters = list(layer.parameters.values())
    whole = torch.autograd.grad(outputs, parameters, weights, retain_graph=True, allow_unused=True)
    if len(arrived) != images or any(grad is None for grad in whole):
        return False
    of_images = torch.stack(arrived)  # [images whose outputs, images whose copies, numbers]
    own = torch.cat([grad.flatten() for grad in whole if grad is not None])
    others = of_images[~torch.eye(images, dtype=torch.bool, device=own.device)]
    return not bool(others.any()) and _close(of_images.sum((0, 1)), own)


def _only(image: int, weights: Tensor) -> Tensor:
    one = torch.zeros_like(weights)
    one[image] = weights[image]
    return one


def _close(x: Tensor, y: Tensor) -> bool:
    return bool((x - y).abs().max() <= SAME * y.abs().max())
