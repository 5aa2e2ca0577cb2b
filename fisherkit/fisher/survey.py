"""A look at the model before measuring: small forward passes that show how each parameter is used.

The closed forms of the ghost engine are right only for a parameter that enters the graph exactly once, through
its own module's forward. Whether that is so cannot be read off the module; it is counted in the autograd graph.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.utils.checkpoint
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .broadcast import broadcast_layers
from .first_call import first_call
from .forms.table import find_form
from .graph import Graph, kept_by_graph, read_graph
from .inputs import Inputs, call, layer_input, sliced
from .layers import Layer, owners

Examined = Callable[[Tensor], tuple[str, ...]]

SAME_OUTPUTS = 0.02  # of their spread; rounding of half precision stays below it
SAME_ROUNDING = 1e-4  # of their size, in single precision
REENTRANT = "activation checkpointing with use_reentrant=True"


@dataclass
class Usage:
    """How one layer was used in one forward pass."""

    calls: int = 0
    uses: dict[str, int] = field(default_factory=dict)  # local parameter name -> edges into it in the graph
    rows: int | None = None  # first dimension of its input
    follows: bool = True  # whether one image fewer is one row fewer
    differentiable: bool = True  # whether gradients were enabled in its forward
    arrives: bool = True  # whether its output is part of the graph of the model's outputs
    recomputed: bool = False  # whether its forward runs again in the backward pass
    broadcast: bool = False  # whether its bare parameters can be copied for each image
    overwritten: bool = False  # whether its output is a view that was changed in place afterwards

    @property
    def reached(self) -> bool:
        """Whether any of its parameters has a gradient path from the outputs."""
        return any(self.uses.values())


@dataclass(frozen=True)
class Survey:
    """What the forward passes showed."""

    images: int
    usage: dict[str, Usage]
    tied: frozenset[str]  # layers with a parameter that several modules own
    joint: str | None  # why the images of a batch are not independent of each other, or None
    opaque: str | None  # a node of the graph that hides what is behind it, or None
    foreign: bool  # whether the graph also begins at tensors that are not parameters of the model
    notes: tuple[str, ...] = ()
    kept_bytes: int | None = None  # of an image: its inputs and what autograd keeps; None where it cannot be told
    outputs: int = 1  # numbers an image

    @property
    def hides(self) -> str | None:
        """A layer that runs without gradients and has one all the same: an autograd.Function around it makes it."""
        return next((name for name, seen in self.usage.items() if seen.reached and not seen.differentiable), None)


def survey(model: nn.Module, inputs: Inputs, layers: Sequence[Layer], examined: Examined) -> Survey:
    """Run the model on a few images; `examined(outputs)` gives notes, or raises where they do not fit the loss.

    Raises:
        ValueError: the model cannot be measured; the message says why and what to do.
    """
    _refuse_renormalising(model)
    seen, outputs, kept = _first_pass(model, inputs, layers)
    remarks = examined(outputs)
    graph = read_graph(outputs, model.parameters())
    for layer in layers:
        usage = seen.usage[layer.name]
        usage.uses = {name: graph.uses(p) for name, p in layer.parameters.items()}
        if layer.name in seen.returned:
            output, node, version = seen.returned[layer.name]
            usage.overwritten = output._is_view() and not output.is_inference() and output._version != version
            usage.arrives = usage.overwritten or node in graph.nodes
    opaque = REENTRANT if seen.reentrant or graph.has("CheckpointFunction") else None
    if opaque is None:
        _refuse_independent(outputs, seen.usage)
    if seen.packed:
        _watch_backward(outputs, layers, seen)
    joint = _why_batchnorm_mixes(model)
    if joint is None and len(outputs) > 1:
        joint = _why_outputs_change(model, inputs, outputs.detach(), layers, seen.usage)
    tied = _tied(model, layers)
    if joint is None and opaque is None and not seen.packed:
        used = [x for x in layers if x.name not in tied and seen.usage[x.name].reached and find_form(x) is None]
        for name in broadcast_layers(model, inputs, outputs, used):
            seen.usage[name].broadcast = True
    return Survey(
        len(outputs),
        seen.usage,
        tied,
        joint,
        opaque,
        graph.foreign,
        (*_notes(graph), *remarks),
        kept_bytes=kept,
        outputs=outputs[0].numel(),
    )


def _first_pass(model: nn.Module, inputs: Inputs, layers: Sequence[Layer]) -> tuple["_Observation", Tensor, int | None]:
    """What hooks on the layers saw, the outputs, and the bytes kept of an image."""
    given = list(inputs.values()) if isinstance(inputs, dict) else [inputs]
    with (
        # torch.func in a forward refuses hooks on saved tensors, or the model is at fault
        suppress(RuntimeError, IndexError),
        kept_by_graph([*given, *model.parameters(), *model.buffers()]) as kept,
        _observed(layers) as seen,
    ):
        outputs = call(model, inputs)
        total = kept.bytes + sum(tensor.numel() * tensor.element_size() for tensor in given)
        return seen, outputs, -(-total // len(outputs))
    with _observed(layers) as seen:
        return seen, first_call(model, inputs), None


def _tied(model: nn.Module, layers: Sequence[Layer]) -> frozenset[str]:
    shared = owners(model)
    return frozenset(layer.name for layer in layers if any(shared[id(p)] > 1 for p in layer.parameters.values()))


def _refuse_independent(outputs: Tensor, usage: dict[str, Usage]) -> None:
    if not outputs.requires_grad or not any(seen.reached for seen in usage.values()):
        raise ValueError(
            "model must return outputs that depend on its trainable parameters; got outputs without a gradient path "
            "to any of them. Look for torch.no_grad(), .detach() or .data in its forward, and for parameters that "
            "are not registered in the model."
        )


def _notes(graph: Graph) -> Iterator[str]:
    if graph.unregistered:
        yield (
            f"{graph.unregistered:,} parameters that the outputs depend on are not registered in the model "
            "(model.parameters() does not list them) and are not measured."
        )


def _why_outputs_change(
    model: nn.Module, inputs: Inputs, outputs: Tensor, layers: Sequence[Layer], usage: dict[str, Usage]
) -> str | None:
    """A second pass without the first image, from the last to the second: an image may depend on those before it or
    after it alone. Notes whose rows do not follow, and says whether outputs change.
    """
    left = len(outputs) - 1
    with _observed(layers) as again:
        fewer = call(model, _backwards(inputs, left)).detach()
    for name, seen in usage.items():
        seen.follows = not seen.calls or again.usage[name].rows == left
    if fewer.shape[1:] != outputs.shape[1:]:
        return None
    changed = (fewer - outputs[1:].flip(0)).abs().max() > _same(outputs)
    return "an image's outputs change with the other images of its batch, or by chance" if bool(changed) else None


def _same(outputs: Tensor) -> Tensor:
    """The largest difference that is none: a large number in all outputs must not hide what changes beside it."""
    half = torch.finfo(outputs.dtype).bits == 16 or torch.is_autocast_enabled(outputs.device.type)
    size, spread = outputs.abs().max(), (outputs - outputs.mean()).abs().max()
    return SAME_OUTPUTS * size if half else torch.maximum(SAME_OUTPUTS * spread, SAME_ROUNDING * size)


def _backwards(inputs: Inputs, count: int) -> Inputs:
    """The last `count` images, the last one first."""
    last = sliced(inputs, -count, None)
    return last.flip(0) if isinstance(last, Tensor) else {name: value.flip(0) for name, value in last.items()}


class _Observation:
    """What hooks on the layers saw during a forward pass."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.usage = {layer.name: Usage() for layer in layers}
        self.returned: dict[str, tuple[Tensor, Any, int]] = {}  # output, its node and version as returned
        self.targets: list[Tensor] = []  # inputs and outputs of layers, where the graph passes through
        self.outside = torch._C._autograd._top_saved_tensors_default_hooks(False)
        self.packed = False  # whether some layer ran under other hooks on saved tensors, as checkpointing sets them
        self.reentrant = False

    def entered(self, name: str, inputs: Sequence[Any]) -> None:
        self.packed |= torch._C._autograd._top_saved_tensors_default_hooks(False) != self.outside
        self.targets += [value for value in inputs if isinstance(value, Tensor) and value.requires_grad]
        if not torch.is_grad_enabled():
            self.usage[name].differentiable = False
            self.reentrant |= _inside_checkpoint()

    def left(self, name: str, value: Any, output: Any) -> None:
        seen = self.usage[name]
        seen.calls += 1
        seen.rows = value.shape[0] if isinstance(value, Tensor) and value.dim() else None
        if isinstance(output, Tensor):
            self.returned[name] = output, output.grad_fn, 0 if output.is_inference() else output._version
            self.targets += [output] if output.requires_grad else []


def _inside_checkpoint() -> bool:
    """Whether reentrant checkpointing called: it runs without gradients, and leaves no node if no input has one."""
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_code.co_filename == torch.utils.checkpoint.__file__ and frame.f_code.co_name == "forward":
            return True
    return False


@contextmanager
def _observed(layers: Sequence[Layer]) -> Iterator[_Observation]:
    seen = _Observation(layers)

    def enter(name: str) -> Any:
        return lambda _, args, kwargs: seen.entered(name, [*args, *kwargs.values()])

    def leave(name: str) -> Any:
        return lambda module, args, kwargs, output: seen.left(name, layer_input(module, args, kwargs), output)

    with _hooks(layers, enter, before=True), _hooks(layers, leave, before=False):
        yield seen


@contextmanager
def _hooks(layers: Sequence[Layer], hook_for: Any, *, before: bool) -> Iterator[None]:
    """Hooks before or after the forward of every layer, ahead of the module's own."""
    handles = []
    try:
        for layer in layers:
            module, hook = layer.caller, hook_for(layer.name)
            register = module.register_forward_pre_hook if before else module.register_forward_hook
            handles.append(register(hook, prepend=True, with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _watch_backward(outputs: Tensor, layers: Sequence[Layer], seen: _Observation) -> None:
    """One backward pass, without weight gradients: layers whose forward runs again are recomputed.

    Only where some layer ran under hooks on saved tensors: nothing else calls a module in the backward pass.
    """

    def enter(name: str) -> Any:
        def hook(*_: Any) -> None:
            seen.usage[name].recomputed = True

        return hook

    with _hooks(layers, enter, before=True):
        torch.autograd.grad(outputs, seen.targets, torch.ones_like(outputs), retain_graph=True, allow_unused=True)


def _why_batchnorm_mixes(model: nn.Module) -> str | None:
    """The first BatchNorm that uses the statistics of the batch: in training mode, or without running statistics."""
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and (module.training or module.running_mean is None):
            return f"layer {name!r} normalises with the statistics of the batch"
    return None


def _refuse_renormalising(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.max_norm is not None:
            raise ValueError(
                f"layer {name!r}: {type(module).__name__}(max_norm=...) rewrites its weights in every forward pass, "
                "so measuring would change training. Set max_norm=None, or renormalise outside the model."
            )
