"""The BackPACK engine: BatchL2Grad (Dangel, Kunstner, Hennig 2020) on a private copy of the model.

BackPACK is silently wrong on some layers (grouped convolutions, padding other than zeros, tied weights, ...;
each is a test). They are refused here, with the engine that can.
"""

import copy
import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from .forms.convolution import CONVOLUTIONS
from .forms.normalisation import BATCH_NORMS
from .forms.table import global_hooks
from .inputs import Inputs, call
from .layers import Layer
from .passes import out_of_memory
from .vectors import Vectors

SUPPORTED = (nn.Linear, *CONVOLUTIONS, *BATCH_NORMS)


def why_not_backpack(layer: Layer) -> str | None:
    """Why BackPACK 1.7 would be wrong or fail on this layer, or None when it is right."""
    module, kind = layer.module, type(layer.module).__name__
    if type(module) not in SUPPORTED:
        return f"BackPACK has no BatchL2Grad for {kind}"
    if "forward" in vars(module) or global_hooks():
        return f"the forward of {kind} is replaced or changed by hooks on all modules"
    if isinstance(module, _ConvNd):
        if module.groups != 1:
            return f"BackPACK's BatchL2Grad is wrong for grouped convolutions (groups={module.groups})"
        if module.padding_mode != "zeros":
            return f"BackPACK's BatchL2Grad is wrong for padding_mode={module.padding_mode!r}"
        if isinstance(module.padding, str):
            return f"BackPACK's BatchL2Grad is wrong for padding={module.padding!r}"
    return None


def backpack(
    model: nn.Module, inputs: Inputs, vectors: Callable[[Tensor], Vectors], layers: Sequence[Layer]
) -> dict[str, Tensor]:
    """Squared norms || J_l^T v ||^2, float64 [vectors, images], from (outputs * v).sum().backward()."""
    from backpack import backpack as context
    from backpack.extensions import BatchL2Grad

    private = private_copy(model)
    own = dict(private.named_parameters())
    rows = []
    with torch.no_grad():
        given = vectors(call(model, inputs))
    for v in given:
        # BackPACK keeps inputs and outputs on the modules: one forward for each backward
        with context(BatchL2Grad()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of layers it has no extension for: _collect raises instead
            _backward(private, inputs, v)
        rows.append({layer.name: _collect(layer, own) for layer in layers})
    return {layer.name: torch.stack([row[layer.name] for row in rows]) for layer in layers}


def _backward(private: nn.Module, inputs: Inputs, v: Tensor) -> None:
    try:
        (call(private, inputs) * v).sum().backward()
    except RuntimeError as error:
        if out_of_memory(error):
            raise
        raise ValueError(
            f"engine='backpack' failed in the model's backward pass: {str(error).splitlines()[0]} "
            "BackPACK hooks cannot follow operations that change a layer's output in place. Use engine='auto'."
        ) from error


def private_copy(model: nn.Module) -> nn.Module:
    """An extended deep copy with in-place activations switched off.

    Raises:
        ValueError: the model cannot be copied.
    """
    from backpack import extend

    try:
        private = copy.deepcopy(model)
    except RuntimeError as error:
        raise ValueError(
            f"engine='backpack' works on a copy of the model, which cannot be made: {error} Use engine='ghost'."
        ) from error
    for module in private.modules():
        if getattr(module, "inplace", False):
            setattr(module, "inplace", False)  # noqa: B010  (a plain attribute, unknown to Module)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        extended: nn.Module = extend(private)
    return extended


def _collect(layer: Layer, own: dict[str, nn.Parameter]) -> Tensor:
    """Sum BackPACK's results over the layer's parameters and clear them."""
    total: Tensor | None = None
    for name in layer.parameters:
        parameter = own[layer.qualified(name)]
        if not hasattr(parameter, "batch_l2"):
            raise ValueError(
                f"layer {layer.name!r}: BackPACK computed nothing for {name!r}; use engine='ghost' or 'vmap'."
            )
        value = parameter.batch_l2.double()
        total = value if total is None else total + value
        del parameter.batch_l2
        parameter.grad = None
    assert total is not None
    return total
