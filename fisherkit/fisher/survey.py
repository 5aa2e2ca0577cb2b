"""A look at the model before measuring: small forward passes that show how each parameter is used.

The closed forms of the ghost engine are right only for a parameter that enters the graph exactly once, through
its own module's forward. Whether that is so cannot be read off the module; it is counted in the autograd graph.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .inputs import Inputs, call, sliced
from .layers import Layer, owners

RESHAPING = frozenset(
    f"{name}Backward0" for name in ("T", "Transpose", "Permute", "View", "UnsafeView", "ToCopy", "Expand", "Alias")
)
SAME_OUTPUTS = 0.02  # relative; rounding of half precision stays below it


@dataclass
class Usage:
    """How one layer was used in one forward pass."""

    calls: int = 0
    uses: dict[str, int] = field(default_factory=dict)  # local parameter name -> edges into it in the graph
    rows: int | None = None  # first dimension of its input
    follows: bool = True  # whether one image fewer is one row fewer
    output: Tensor | None = None
    version: int = 0  # of the output when the module returned it

    @property
    def reached(self) -> bool:
        """Whether any of its parameters has a gradient path from the outputs."""
        return any(self.uses.values())

    @property
    def overwritten(self) -> bool:
        """Whether its output is a view that was changed in place afterwards."""
        output = self.output
        return output is not None and output._is_view() and output._version != self.version


@dataclass(frozen=True)
class Survey:
    """What the forward passes showed."""

    images: int
    usage: dict[str, Usage]
    tied: frozenset[str]  # layers with a parameter that several modules own
    joint: str | None  # why the images of a batch are not independent of each other, or None
    opaque: str | None  # a node of the graph that hides what is behind it, or None


def survey(model: nn.Module, inputs: Inputs, layers: Sequence[Layer], check: Any) -> Survey:
    """Run the model on a few images; `check(outputs)` may raise on outputs that do not fit the loss."""
    _refuse_renormalising(model)
    usage = {layer.name: Usage() for layer in layers}
    with _counted_calls(layers, usage):
        outputs = call(model, inputs)
    check(outputs)
    edges, opaque = _edges(outputs)
    for layer in layers:
        usage[layer.name].uses = {name: edges.get(id(p), 0) for name, p in layer.parameters.items()}
    shared = owners(model)
    tied = frozenset(layer.name for layer in layers if any(shared[id(p)] > 1 for p in layer.parameters.values()))
    joint = _why_batchnorm_mixes(model)
    if joint is None and len(outputs) > 1:
        joint = _why_outputs_change(model, inputs, outputs.detach(), layers, usage)
    return Survey(len(outputs), usage, tied, joint, opaque)


def _why_outputs_change(
    model: nn.Module, inputs: Inputs, outputs: Tensor, layers: Sequence[Layer], usage: dict[str, Usage]
) -> str | None:
    """A second pass without the last image: notes whose rows do not follow, and says whether outputs change."""
    left = len(outputs) - 1
    again = {layer.name: Usage() for layer in layers}
    with _counted_calls(layers, again):
        fewer = call(model, sliced(inputs, 0, left)).detach()
    for name, seen in usage.items():
        seen.follows = not seen.calls or again[name].rows == left
    if fewer.shape[1:] != outputs.shape[1:]:
        return None
    changed = (fewer - outputs[:left]).abs().max() > SAME_OUTPUTS * outputs.abs().max()
    return "an image's outputs change with the other images of its batch, or by chance" if bool(changed) else None


@contextmanager
def _counted_calls(layers: Sequence[Layer], usage: dict[str, Usage]) -> Iterator[None]:
    def hook_for(seen: Usage) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            seen.calls += 1
            value = args[0] if args else kwargs.get("input")
            seen.rows = value.shape[0] if isinstance(value, Tensor) and value.dim() else None
            if isinstance(output, Tensor):
                seen.output, seen.version = output, output._version

        return hook

    handles = [
        layer.module.register_forward_hook(hook_for(usage[layer.name]), prepend=True, with_kwargs=True)
        for layer in layers
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _edges(outputs: Tensor) -> tuple[dict[int, int], str | None]:
    """How often each parameter (by id) enters the graph, and what hides part of the graph.

    Two operations may share one node that only reshapes or casts a weight (the transpose of a Linear that a
    gradient inside the forward uses again; autocast's cache): each edge into such a node is a use.
    """
    parents: dict[Any, list[Any]] = {}
    opaque = None
    seen, stack = set(), [outputs.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if "CheckpointFunction" in node.name():
            opaque = "activation checkpointing with use_reentrant=True"
        for child, _ in node.next_functions:
            if child is not None:
                parents.setdefault(child, []).append(node)
                stack.append(child)

    def uses(node: Any) -> int:
        return sum(uses(parent) if parent.name() in RESHAPING else 1 for parent in parents.get(node, [None]) if parent)

    leaves = ((node, getattr(node, "variable", None)) for node in parents)  # AccumulateGrad nodes hold a parameter
    return {id(variable): uses(node) for node, variable in leaves if variable is not None}, opaque


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
