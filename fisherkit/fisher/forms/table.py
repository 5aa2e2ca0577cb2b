"""The table of closed forms: which layers the ghost engine can take, and why not the others."""

import torch
from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from ..layers import Layer
from .affine import EMBEDDING, LINEAR
from .attention import IN_PROJECTION
from .convolution import CONVOLUTIONS, convolution
from .convolution_blocks import convolution_blocks
from .form import Form
from .normalisation import NORMALISATIONS
from .transposed import TRANSPOSED, TRANSPOSED_FORM

# exact types: a subclass may compute something else in its forward
FORMS: dict[type[nn.Module], Form] = {
    nn.Linear: LINEAR,
    NonDynamicallyQuantizableLinear: LINEAR,  # the out_proj of an attention: a Linear by another name
    nn.MultiheadAttention: IN_PROJECTION,
    nn.Embedding: EMBEDDING,
    **dict.fromkeys(CONVOLUTIONS, Form(convolution, convolution_blocks)),
    **dict.fromkeys(TRANSPOSED, TRANSPOSED_FORM),
    **NORMALISATIONS,
}


def find_form(layer: Layer) -> Form | None:
    """The closed form for a layer's type, or None."""
    return FORMS.get(type(layer.module))


def global_hooks() -> bool:
    """Whether hooks on every module are installed: they may change what a forward returns."""
    hooks = torch.nn.modules.module
    return bool(hooks._global_forward_hooks or hooks._global_forward_pre_hooks)


def why_no_form(layer: Layer) -> str | None:
    """Why the ghost engine has no form for this layer, or None when it has one."""
    module, kind = layer.module, type(layer.module).__name__
    form = find_form(layer)
    if form is None:
        names = ", ".join(sorted(layer.parameters))
        return f"there is no closed form for {kind} with parameters {names}"
    if any("forward" in vars(called) for called in (module, layer.caller)) or global_hooks():
        return f"the forward of {kind} is replaced or changed by hooks on all modules"
    other = sorted(set(layer.parameters) - set(form.parameters))
    if other:
        return f"there is no closed form for {kind} with parameters {', '.join(other)}"
    if isinstance(module, nn.Embedding) and module.scale_grad_by_freq:
        return "Embedding(scale_grad_by_freq=True) scales gradients by the whole batch"
    if any(not isinstance(getattr(module, name), nn.Parameter) for name in layer.parameters):
        return f"a parametrization changes the weights of {kind}"
    return None
