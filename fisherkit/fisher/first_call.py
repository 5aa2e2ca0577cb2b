"""The first call of a model on a user's images: what fails there is told with the images that it fails on."""

from torch import Tensor, nn

from .inputs import Inputs, call, first_tensor
from .passes import out_of_memory


def first_call(model: nn.Module, inputs: Inputs) -> Tensor:
    """The outputs.

    Raises:
        ValueError: the model fails on these images; the message has their type or shape and what the model said.
    """
    try:
        return call(model, inputs)
    except (RuntimeError, IndexError) as error:
        if out_of_memory(error):
            raise
        said = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(_why_type(model, inputs, said) or _why_shape(inputs, said)) from error


def _why_type(model: nn.Module, inputs: Inputs, said: str) -> str | None:
    values = inputs.values() if isinstance(inputs, dict) else [inputs]
    given = {value.dtype for value in values}
    wanted = {p.dtype for p in model.parameters() if p.is_floating_point()}
    if "type" not in said or given <= wanted or len(wanted) != 1:
        return None
    (dtype,), other = wanted, next(iter(given - wanted))
    return (
        f"images must have the dtype of the model's parameters, {dtype}; got {other}. "
        f"Pass images.to({dtype}). The model said: {said}"
    )


def _why_shape(inputs: Inputs, said: str) -> str:
    if isinstance(inputs, dict):
        shape = ", ".join(f"{name} {list(value.shape[1:])}" for name, value in inputs.items())
    else:
        shape = f"{list(inputs.shape[1:])}"
    return (
        f"model must run on the images; it fails on {len(first_tensor(inputs))} of shape {shape}. Check it, and that "
        f"model(images) works. The model said: {said}"
    )
