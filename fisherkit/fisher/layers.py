"""Layers: the modules that own trainable parameters directly, each parameter in exactly one of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn
from torch.nn.parameter import is_lazy

ROOT = "(model)"  # the name of parameters that the outermost module owns itself

# Modules that only call the one inside them, and the attribute that holds it. By name: importing them is slow.
WRAPPERS = {
    "torch._dynamo.eval_frame.OptimizedModule": "_orig_mod",
    "torch.nn.parallel.data_parallel.DataParallel": "module",
    "torch.nn.parallel.distributed.DistributedDataParallel": "module",
    "torch.optim.swa_utils.AveragedModel": "module",
    "torch.distributed.algorithms._checkpoint.checkpoint_wrapper.CheckpointWrapper": "_checkpoint_wrapped_module",
}
SHARDED_MODULE = "torch.distributed.fsdp.fully_sharded_data_parallel.FullyShardedDataParallel"
SHARDED_TENSOR = "torch.distributed.tensor.DTensor"


@dataclass(frozen=True, eq=False)
class Layer:
    """One module and the trainable parameters it owns; a tied parameter belongs to its first owner."""

    name: str  # as in the plain model, without the wrappers of torch.compile, DataParallel, ...
    module: nn.Module
    parameters: dict[str, nn.Parameter]  # local name -> parameter
    overwritten: bool = False  # whether its output is a view that is later changed in place; found by survey.py
    broadcast: bool = False  # whether its parameters can be copied for each image; found by survey.py
    foreign: bool = False  # whether the graph also begins at tensors that are not parameters; found by survey.py
    path: str | None = None  # where `model.named_modules()` has it, where that is not its name
    attention: nn.MultiheadAttention | None = None  # whose forward uses the parameters, its own or its out_proj's

    @property
    def caller(self) -> nn.Module:
        """The module whose forward uses the parameters."""
        return self.module if self.attention is None else self.attention

    @property
    def size(self) -> int:
        """Number of trainable parameters."""
        return sum(parameter.numel() for parameter in self.parameters.values())

    def qualified(self, local: str) -> str:
        """The parameter's name as `model.named_parameters()` spells it."""
        path = self.name if self.path is None else self.path
        return local if path in ("", ROOT) else f"{path}.{local}"


def trainable_layers(model: nn.Module) -> tuple[Layer, ...]:
    """The layers of a model in the order of `model.named_modules()`.

    Parameters with `requires_grad=False` are not part of the Fisher information of what is trained and are
    left out; a parameter that several modules share is counted once. Wrapped models and submodules have the
    names of the plain ones.

    Raises:
        ValueError: the model has no trainable parameter, or `unwrapped` refuses it.
    """
    seen: set[int] = set()
    plain = unwrapped(model)
    layers, attentions = [], _attentions(plain)
    for name, path, module in _named_modules(plain):
        own: dict[str, nn.Parameter] = {}
        for local, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad and id(parameter) not in seen:
                seen.add(id(parameter))
                own[local] = parameter
        if own:
            layers.append(Layer(name or ROOT, module, own, path=path, attention=attentions.get(module)))
    if not layers:
        raise ValueError(
            "model must have a parameter with requires_grad=True; got none. "
            "Frozen parameters are not measured: call model.requires_grad_(True) to measure all of them."
        )
    return tuple(layers)


def _attentions(model: nn.Module) -> dict[nn.Module, nn.MultiheadAttention]:
    """Attentions, by themselves and by their out_proj: its forward is never called, theirs uses its parameters."""
    found = [module for module in model.modules() if type(module) is nn.MultiheadAttention]
    return {**{attention: attention for attention in found}, **{attention.out_proj: attention for attention in found}}


def unwrapped(model: object) -> nn.Module:
    """The plain module inside torch.compile, DataParallel, DistributedDataParallel and AveragedModel.

    Hooks do not see inside compiled code, and a call of the wrapper would take part in the training's
    communication; the module itself is the same function of the same parameters.

    Raises:
        ValueError: not a module; or its parameters are not here (sharded, on the meta device, not yet made).
    """
    if not isinstance(model, nn.Module):
        raise ValueError(
            f"model must be a torch.nn.Module; got {type(model).__name__}. "
            "Wrap it in a module that registers its parameters."
        )
    plain: nn.Module = model
    while (inside := _inside(plain)) is not None:
        if plain._forward_hooks or plain._forward_pre_hooks:
            raise ValueError(
                f"model must carry its hooks on the plain module; got hooks on its {type(plain).__name__} wrapper, "
                f"which is not called here. Register them on model.{inside}."
            )
        plain = cast(nn.Module, plain._modules[inside])
    _refuse_absent(plain)
    _refuse_inference(plain)
    return plain


def _inside(module: nn.Module) -> str | None:
    """The attribute that holds the module inside a wrapper, or None."""
    for kind in type(module).__mro__:
        if (name := _qualified_name(kind)) in WRAPPERS:
            return WRAPPERS[name]
        if "forward" in vars(kind):  # a subclass of a wrapper that does more than call it
            return None
    return None


def _qualified_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _named_modules(model: nn.Module) -> Iterator[tuple[str, str, nn.Module]]:
    """(name without wrappers, path, module) of every module."""
    names = {"": ""}
    wrappers: dict[str, str | None] = {}
    for path, module in model.named_modules():
        parent, _, attribute = path.rpartition(".")
        if path:
            above = names[parent]
            hidden = wrappers[parent] == attribute
            names[path] = above if hidden else f"{above}.{attribute}" if above else attribute
        wrappers[path] = _inside(module)
        yield names[path], path, module


def _refuse_absent(model: nn.Module) -> None:
    """Parameters whose values are elsewhere, or nowhere; modules that cannot be looked into."""
    sharded = "whole parameters on this device are needed: load a full state dict into the plain model and measure that"
    for path, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise ValueError(
                f"layer {path or ROOT!r} is compiled by torch.jit ({type(module).__name__}), which hides what it does; "
                "measure the module that it was made from."
            )
        if SHARDED_MODULE in map(_qualified_name, type(module).__mro__):
            raise ValueError(f"layer {path or ROOT!r} is sharded by FullyShardedDataParallel; {sharded}.")
        for local, parameter in module.named_parameters(recurse=False):
            name = f"{path}.{local}" if path else local
            if is_lazy(parameter):
                raise ValueError(
                    f"parameter {name!r} has no shape yet ({type(module).__name__}); "
                    "call the model on a batch once before measuring."
                )
            if parameter.device.type == "meta":
                raise ValueError(
                    f"parameter {name!r} is on the meta device and has no values; "
                    "call model.to_empty(device=...) and load its weights."
                )
            if any(_qualified_name(kind) == SHARDED_TENSOR for kind in type(parameter.data).__mro__):
                raise ValueError(f"parameter {name!r} is a sharded DTensor; {sharded}.")


def _refuse_inference(model: nn.Module) -> None:
    for kind, tensors in (("parameter", model.named_parameters()), ("buffer", model.named_buffers())):
        name = next((name for name, tensor in tensors if tensor.is_inference()), None)
        if name is not None:
            raise ValueError(
                f"{kind} {name!r} was made under torch.inference_mode(), so that autograd cannot use it; make the "
                "model outside of it, or measure a copy.deepcopy(model) made outside."
            )


def owners(model: nn.Module) -> dict[int, int]:
    """How many modules own each parameter, by its id: more than one means tied weights."""
    count: dict[int, int] = {}
    for module in model.modules():
        for _, parameter in module.named_parameters(recurse=False):
            count[id(parameter)] = count.get(id(parameter), 0) + 1
    return count


def frozen_parameters(model: nn.Module) -> int:
    """Number of parameters with `requires_grad=False`."""
    return sum(parameter.numel() for parameter in model.parameters() if not parameter.requires_grad)


def is_complex(layer: Layer) -> bool:
    """Whether some parameter is complex: two real parameters each."""
    return any(parameter.is_complex() for parameter in layer.parameters.values())


def real(gradient: torch.Tensor) -> torch.Tensor:
    """The gradient in real and imaginary part of a complex parameter, side by side: torch gives a + ib for them."""
    return torch.view_as_real(gradient) if gradient.is_complex() else gradient
