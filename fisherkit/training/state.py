"""Snapshots of a training, and the checks before one is put back."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fisherkit.training.options import TrainingOptions

_OTHER_MODEL = "Build the model with the options of the run that wrote it."
_OPTIMIZER_TENSORS = {"sgd": {"momentum_buffer"}, "adam": {"step", "exp_avg", "exp_avg_sq"}}

# part of a state -> its type
PARTS: Mapping[str, type] = {
    "model": dict,
    "optimizer": dict,
    "epoch": int,
    "step": int,
    "step_in_epoch": int,
    "losses": Tensor,
    "correct": Tensor,
    "elapsed_s": float,
    "optimizer_name": str,
    "seed": int,
    "batch_size": int,
    "train_images": str,
    "conditions": dict,
}
# parts of a training that uses what they belong to -> type
OPTIONAL_PARTS: Mapping[str, type] = {
    "fisher_penalty": str,  # the option
    "penalties": dict,  # step of the epoch -> value
    "penalty_gradient": list,  # for each trained parameter, while it is still to be added
    "gradient_norms": list,  # old and new, of the epoch in progress
}


def snapshot(value: Any) -> Any:
    """The same values in new tensors on the CPU, in plain dictionaries and lists: later training leaves them alone."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: snapshot(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [snapshot(part) for part in value]
    return value


def check_parts(state: Any) -> None:
    """Raise ValueError unless the state has the parts of a training's state, each of its type."""
    if not isinstance(state, Mapping):
        raise ValueError(f"state must be a dictionary from Training.state_dict; got a {type(state).__name__}.")
    missing = [name for name in PARTS if name not in state]
    if missing:
        raise ValueError(f"state must have the parts {', '.join(PARTS)}; got none named {', '.join(missing)}.")
    optional = {name: kind for name, kind in OPTIONAL_PARTS.items() if name in state}
    for name, kind in {**PARTS, **optional}.items():
        if not isinstance(state[name], kind) or isinstance(state[name], bool):
            raise ValueError(f"{name} of the state must be of type {kind.__name__}; got {type(state[name]).__name__}.")
        if kind is int and state[name] < 0:
            raise ValueError(f"{name} of the state must be >= 0; got {state[name]!r}.")
    done = state["step_in_epoch"]
    for name, dtype in (("losses", torch.float32), ("correct", torch.int64)):
        if state[name].shape != (done,) or state[name].dtype != dtype:
            raise ValueError(
                f"{name} of the state must be {dtype} with shape ({done},), a value for each step of the epoch; "
                f"got {state[name].dtype} with shape {tuple(state[name].shape)}."
            )


def check_optional_parts(state: Mapping[str, Any], parameters: Sequence[Tensor]) -> None:
    """Raise ValueError unless what a penalty and gradient norms have left fits this model."""
    steps, done = state.get("penalties", {}), state["step_in_epoch"]
    if not all(step in range(done) and _is_number(value) for step, value in steps.items()):
        raise ValueError(f"penalties of the state must be a number for some of the {done} steps; got others.")
    gradient = state.get("penalty_gradient", [None] * len(parameters))
    fits = [part is None or _form(part) == _form(own) for part, own in zip(gradient, parameters, strict=False)]
    if len(gradient) != len(parameters) or not all(fits):
        raise ValueError(f"penalty_gradient of the state must have the shapes of the parameters. {_OTHER_MODEL}")
    norms = state.get("gradient_norms", [0.0, 0.0])
    if len(norms) != 2 or not all(isinstance(norm, float) for norm in norms):
        raise ValueError(f"gradient_norms of the state must be two numbers; got {norms!r}.")


def check_course(state: Mapping[str, Any], options: TrainingOptions, course: Mapping[str, Any], *, steps: int) -> None:
    """Raise ValueError unless a training of these options can go on where the state stopped.

    `course` is what the steps of the state's epoch are made of in this training, and `steps` is their number.
    """
    epochs, name, epoch, done = options.epochs, options.optimizer, state["epoch"], state["step_in_epoch"]
    if state["optimizer_name"] != name:
        raise ValueError(
            f"optimizer must be {state['optimizer_name']!r}, as in the saved training; got {name!r}. "
            "To change it, load only the model."
        )
    if epoch + (done > 0) > epochs:
        raise ValueError(f"epochs must be at least the {epoch + (done > 0)} already begun; got {epochs!r}.")
    for part, value in course.items() if done else ():
        saved = state.get(part, "")  # fisher_penalty is not in the states of a training without one
        if saved != value:
            raise ValueError(
                f"{part} must be {saved!r}, as in the saved training, until epoch {epoch} ends; "
                f"got {value!r}. Continue with the same options, or branch off between epochs."
            )
    if done >= steps:
        raise ValueError(f"step_in_epoch of the state must be below {steps}, the steps of an epoch; got {done!r}.")


def check_model_state(saved: Mapping[str, Any], model: nn.Module) -> None:
    """Raise ValueError unless the saved parameters and buffers are this model's in names, shapes and types."""
    own = model.state_dict()
    missing = [name for name in own if name not in saved]
    unexpected = [name for name in saved if name not in own]
    if missing or unexpected:
        lacks = f" it lacks {_listed(missing)};" if missing else ""
        has = f" it has {_listed(unexpected)}, which the model has not;" if unexpected else ""
        raise ValueError(f"the saved state must be of the same model:{lacks}{has} {_OTHER_MODEL}".replace("; B", ". B"))
    for name, tensor in own.items():
        if isinstance(tensor, Tensor) and _form(saved[name]) != _form(tensor):
            raise ValueError(
                f"the saved {name!r} must be {_form(tensor)} as in the model; got {_form(saved[name])}. {_OTHER_MODEL}"
            )


def check_optimizer_state(saved: Mapping[Any, Any], optimizer: torch.optim.Optimizer, *, name: str) -> None:
    """Raise ValueError unless the saved optimizer state fits the optimizer's parameters."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, tensors in saved.items():
        known = isinstance(index, int) and index < len(parameters) and isinstance(tensors, Mapping)
        if not known or set(tensors) != _OPTIMIZER_TENSORS[name]:
            raise ValueError(
                f"the saved optimizer state must hold {', '.join(sorted(_OPTIMIZER_TENSORS[name]))} for at most "
                f"{len(parameters)} parameters; got something else for parameter {index!r}. {_OTHER_MODEL}"
            )
        for part, tensor in tensors.items():
            wanted = () if part == "step" else tuple(parameters[index].shape)
            if not isinstance(tensor, Tensor) or tuple(tensor.shape) != wanted:
                raise ValueError(
                    f"the saved {part} of parameter {index} must have shape {wanted}; "
                    f"got {_form(tensor)}. {_OTHER_MODEL}"
                )


def _is_number(value: Any) -> bool:
    return isinstance(value, Tensor) and value.shape == () and value.dtype == torch.float32


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def _form(value: Any) -> str:
    return f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
