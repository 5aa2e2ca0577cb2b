"""A look at the model before measuring: one small forward pass that counts how each parameter is used.

The closed forms of the ghost engine are right only for a parameter that enters the graph exactly once, through
its own module's forward. Whether that is so cannot be read off the module; it is counted in the autograd graph.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .inputs import Inputs, call, first_tensor
from .layers import Layer, owners


@dataclass
class Usage:
    """How one layer was used in one forward pass."""

    calls: int = 0
    uses: dict[str, int] = field(default_factory=dict)  # local parameter name -> edges into it in the graph
    rows: int | None = None  # first dimension of its input
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
    """What the forward pass showed."""

    images: int
    outputs: int  # number of outputs of one image
    usage: dict[str, Usage]
    tied: frozenset[str]  # layers with a parameter that several modules own
    joint: str | None  # the first module that mixes the images of a batch, or None
    opaque: str | None  # a node of the graph that hides what is behind it, or None


def survey(model: nn.Module, inputs: Inputs, layers: Sequence[Layer], check: Any) -> Survey:
    """Run the model once on a few images; `check(outputs)` may raise on outputs that do not fit the loss."""
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
    joint = next((name for name, module in model.named_modules() if _mixes_images(module)), None)
    images = len(first_tensor(inputs))
    return Survey(images, outputs.numel() // len(outputs), usage, tied, joint, opaque)


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
    """How many edges of the graph lead into each parameter (by id), and a node that hides part of the graph."""
    count: dict[int, int] = {}
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
            if child is None:
                continue
            variable = getattr(child, "variable", None)  # an AccumulateGrad node: a parameter
            if variable is not None:
                count[id(variable)] = count.get(id(variable), 0) + 1
            stack.append(child)
    return count, opaque


def _mixes_images(module: nn.Module) -> bool:
    """BatchNorm that uses the statistics of the batch: in training mode, or without running statistics."""
    return isinstance(module, _BatchNorm) and (module.training or module.running_mean is None)


def _refuse_renormalising(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.max_norm is not None:
            raise ValueError(
                f"layer {name!r}: {type(module).__name__}(max_norm=...) rewrites its weights in every forward pass, "
                "so measuring would change training. Set max_norm=None, or renormalise outside the model."
            )
