"""The ghost engine: per-image squared norms of every layer in one backward pass without weight gradients.

Ghost norms (Goodfellow 2015, arXiv 1510.01799; Li et al. 2022, arXiv 2110.05679). The parameters are taken out
of the graph, so the backward pass computes gradients of layer outputs only; each layer's closed form turns its
input and its output gradient into || J_l^T v ||^2 for every image.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .batch import joint_squares
from .broadcast import copied
from .forms.attention import tapped
from .forms.table import find_form
from .inputs import Inputs, call, first_tensor, layer_input
from .layers import Layer
from .vectors import Vectors, backward_passes

# a layer and its input -> a function of the output gradient of one vector
Respond = Callable[[Layer, Tensor], Callable[[Tensor], Tensor]]


def ghost(
    model: nn.Module,
    inputs: Inputs,
    vectors: Callable[[Tensor], Vectors],
    layers: Sequence[Layer],
    *,
    joint: Sequence[Layer] = (),
    mixed: bool = False,
    respond: Respond | None = None,
) -> dict[str, Tensor]:
    """Squared norms || J_l^T v ||^2, float64 [vectors, images] for each layer in `layers`.

    `joint` layers are measured in the same backward passes as the batch engine does, for the vectors with mean zero:
    [vectors, 1]. `mixed` says that there are others too. `respond` may take other norms than the closed forms'.
    The caller has surveyed the model (see plan.py): each layer is called once.
    """
    rows = responses(model, inputs, vectors, layers, respond or norms_of, joint=joint, mixed=mixed)
    return {name: torch.stack([row[name] for row in rows if name in row]) for name in rows[0]}


def norms_of(layer: Layer, a: Tensor) -> Callable[[Tensor], Tensor]:
    """The squared norms in float64 by the layer's closed form."""
    form = find_form(layer)
    assert form is not None
    norms = form.norms(layer, a)
    return lambda g: norms(g).double()


def single(x: Tensor) -> Tensor:
    """At least float32: the squares of a gradient in half precision would be lost to rounding and underflow."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def responses(
    model: nn.Module,
    inputs: Inputs,
    vectors: Callable[[Tensor], Vectors],
    layers: Sequence[Layer],
    respond: Respond,
    *,
    joint: Sequence[Layer] = (),
    mixed: bool = False,
) -> list[dict[str, Tensor]]:
    """For each vector, what `respond(layer, input)(output gradient)` returns for each layer; one forward pass.

    `mixed`: not all vectors have mean zero, so that some backward passes do not go to the parameters of `joint`.
    """
    images = len(first_tensor(inputs))
    taps = [_Tap(layer, images, respond) for layer in layers]
    anchor = torch.zeros((), device=first_tensor(inputs).device, requires_grad=True)
    shared = [p for layer in joint for p in layer.parameters.values()]
    rows: list[dict[str, Tensor]] = []
    try:
        with _only_differentiated(model, shared), _attached(taps, anchor, everywhere=mixed):
            outputs = call(model, inputs)
            for _, *grads in backward_passes(outputs, [anchor], vectors(outputs), joint=shared):
                row = {tap.layer.name: tap.collect() for tap in taps}
                rows.append(row | (joint_squares(joint, grads, images) if grads else {}))
    finally:
        for tap in taps:
            tap.release()
    return rows


class PathError(ValueError):
    """A layer is used otherwise on this batch than on the images that the survey looked at."""

    def __init__(self, layer: str, what: str) -> None:
        super().__init__(
            f"layer {layer!r} {what}: the model takes different paths for different batches. "
            "Use engine='auto', 'batch' or 'vmap'."
        )
        self.layer = layer
        self.reason = f"it {what}"


class _Tap:
    """Holds how one layer responds to output gradients, from a forward pass on, and its response in a backward."""

    def __init__(self, layer: Layer, images: int, respond: Respond) -> None:
        self.layer, self.images, self.respond = layer, images, respond
        self.given: Callable[[Tensor], Tensor] | None = None
        self.input: Tensor | None = None
        self.version = 0
        self.response: Tensor | None = None

    def enter(self, a: Tensor) -> None:
        name = self.layer.name
        if self.input is not None:
            raise PathError(name, "was called twice on this batch but once on the first images")
        if a.shape[0] != self.images:
            raise PathError(name, f"was called with {a.shape[0]} rows for the {self.images} images of this batch")
        self.input, self.version = a, a._version
        with torch.no_grad(), torch.autocast(a.device.type, enabled=False):
            self.given = self.respond(self.layer, single(a.detach()))

    def receive(self, g: Tensor) -> None:
        assert self.given is not None
        assert self.input is not None
        if self.input._version != self.version:
            raise ValueError(
                f"layer {self.layer.name!r}: its input was changed in place after its forward; "
                "use a module without inplace=True there, or engine='batch'."
            )
        with torch.no_grad(), torch.autocast(g.device.type, enabled=False):
            self.response = self.given(single(g))

    def collect(self) -> Tensor:
        """The response to the last backward pass."""
        response, self.response = self.response, None
        if response is None:
            raise PathError(
                self.layer.name,
                "had no gradient on this batch, though the outputs depended on it for the first images",
            )
        return response

    def release(self) -> None:
        """Let go of the pass: a graph whose hooks lead to a tap that holds a part of it would never be freed."""
        self.given = self.input = self.response = None


class _Start(torch.autograd.Function):
    """The identity, in place: makes an output part of the graph that hangs from `anchor`."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, anchor: Tensor) -> Tensor:
        ctx.mark_dirty(output)
        return output

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        return g, None


@contextmanager
def _attached(taps: Sequence[_Tap], anchor: Tensor, *, everywhere: bool) -> Iterator[None]:
    """Hook the tapped layers' modules, and let the graph start at the first of their outputs, or at all of them."""

    def attach(layer: Layer, output: Tensor, receive: Callable[[Tensor], None]) -> Tensor:
        starts = torch.is_grad_enabled() and (everywhere or layer.foreign or not output.requires_grad)
        if layer.overwritten or (starts and output._is_view()):
            output = output.clone()  # a hook on a view is lost when the view is changed in place
        if starts:
            output = _Start.apply(output, anchor)  # type: ignore[no-untyped-call]
        if output.requires_grad:
            output.register_hook(receive)
        return output

    def hook_for(tap: _Tap) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor:
            tap.enter(layer_input(module, args, kwargs))
            return attach(tap.layer, output, tap.receive)

        return hook

    inside: dict[nn.MultiheadAttention, dict[nn.Module, _Tap]] = {}
    with ExitStack() as stack:
        for tap in taps:
            if tap.layer.broadcast:
                tap.enter(anchor.new_zeros(tap.images, 0))  # no input: the gradients are the copies' own
                stack.enter_context(copied(tap.layer, tap.images, anchor, tap.receive))
                continue
            if tap.layer.attention is not None:
                inside.setdefault(tap.layer.attention, {})[tap.layer.module] = tap
                continue
            # first of the module's hooks: it must see the output before a user's hook changes it
            handle = tap.layer.module.register_forward_hook(hook_for(tap), prepend=True, with_kwargs=True)
            stack.callback(handle.remove)
        for attention, own in inside.items():
            stack.enter_context(tapped(attention, own, attach))
        yield


@contextmanager
def _only_differentiated(model: nn.Module, kept: Sequence[nn.Parameter]) -> Iterator[None]:
    """Take every parameter but `kept` out of the graph, so that backward computes no other weight gradient."""
    wanted = set(map(id, kept))
    parameters = [p for p in model.parameters() if p.requires_grad and id(p) not in wanted]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
