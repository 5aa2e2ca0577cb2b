"""The table of closed forms: which layers the ghost engine can take, and why not the others."""

from collections.abc import Iterable

import torch
from torch import nn

from ..layers import Layer
from .affine import EMBEDDING, LINEAR
from .attention import IN_PROJECTION
from .bare import BARE
from .convolution import CONVOLUTION_FORM, CONVOLUTIONS
from .form import Form
from .normalisation import NORMALISATIONS
from .transposed import TRANSPOSED, TRANSPOSED_FORM

# types that compute the same by another name; by name, since importing them is slow
SAME = {"transformers.pytorch_utils.Conv1D": nn.Linear}  # a Linear whose weight is transposed

# what a subclass may define and still compute what its base does
INITIALISES = {
    *("__init__", "reset_parameters", "extra_repr", "__repr__", "__module__", "__qualname__", "__doc__"),
    *("__annotations__", "__constants__", "__firstlineno__", "__static_attributes__"),
}

FORMS: dict[type[nn.Module], Form] = {
    nn.Linear: LINEAR,
    nn.MultiheadAttention: IN_PROJECTION,
    nn.Embedding: EMBEDDING,
    **dict.fromkeys(CONVOLUTIONS, CONVOLUTION_FORM),
    **dict.fromkeys(TRANSPOSED, TRANSPOSED_FORM),
    **NORMALISATIONS,
}


def find_form(layer: Layer) -> Form | None:
    """The closed form for a layer's type, or None; a subclass that only makes parameters otherwise has its base's."""
    if layer.broadcast:
        return BARE
    for kind in type(layer.module).__mro__:
        known = SAME.get(f"{kind.__module__}.{kind.__qualname__}", kind)
        if known in FORMS:
            return None if known is nn.MultiheadAttention and layer.attention is None else FORMS[known]
        if not set(vars(kind)) <= INITIALISES:
            return None
    return None


def global_hooks() -> bool:
    """Whether hooks on every module are installed: they may change what a forward returns."""
    hooks = torch.nn.modules.module
    return bool(hooks._global_forward_hooks or hooks._global_forward_pre_hooks)


def why_no_form(layer: Layer) -> str | None:
    """Why the ghost engine has no form for this layer, or None when it has one."""
    module, kind = layer.module, type(layer.module).__name__
    form = find_form(layer)
    if form is None:
        return f"there is no closed form for {kind} with parameters {_listed(layer.parameters)}"
    if any("forward" in vars(called) for called in (module, layer.caller)) or global_hooks():
        return f"the forward of {kind} is replaced or changed by hooks on all modules"
    other = sorted(set(layer.parameters) - set(form.parameters))
    if other:
        return f"there is no closed form for {kind} with parameters {_listed(other)}"
    if isinstance(module, nn.Embedding) and module.scale_grad_by_freq:
        return "Embedding(scale_grad_by_freq=True) scales gradients by the whole batch"
    if any(not isinstance(getattr(module, name), nn.Parameter) for name in layer.parameters):
        return f"a parametrization changes the weights of {kind}"
    return None


def _listed(names: Iterable[str]) -> str:
    ordered = sorted(names)
    return ", ".join(ordered if len(ordered) < 6 else [*ordered[:4], f"... ({len(ordered)} in all)"])
