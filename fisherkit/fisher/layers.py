"""Layers: the modules that own trainable parameters directly, each parameter in exactly one of them."""

from dataclasses import dataclass

from torch import nn

ROOT = "(model)"  # the name of parameters that the outermost module owns itself


@dataclass(frozen=True, eq=False)
class Layer:
    """One module and the trainable parameters it owns; a tied parameter belongs to its first owner."""

    name: str
    module: nn.Module
    parameters: dict[str, nn.Parameter]  # local name -> parameter
    overwritten: bool = False  # whether its output is a view that is later changed in place; found by survey.py

    @property
    def size(self) -> int:
        """Number of trainable parameters."""
        return sum(parameter.numel() for parameter in self.parameters.values())

    def qualified(self, local: str) -> str:
        """The parameter's name as `model.named_parameters()` spells it."""
        return local if self.name == ROOT else f"{self.name}.{local}"


def trainable_layers(model: nn.Module) -> tuple[Layer, ...]:
    """The layers of a model in the order of `model.named_modules()`.

    Parameters with `requires_grad=False` are not part of the Fisher information of what is trained and are
    left out; a parameter that several modules share is counted once.

    Raises:
        ValueError: the model has no trainable parameter.
    """
    seen: set[int] = set()
    layers = []
    for path, module in model.named_modules():
        own: dict[str, nn.Parameter] = {}
        for local, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad and id(parameter) not in seen:
                seen.add(id(parameter))
                own[local] = parameter
        if own:
            layers.append(Layer(path or ROOT, module, own))
    if not layers:
        raise ValueError(
            "model must have a parameter with requires_grad=True; got none. "
            "Frozen parameters are not measured: call model.requires_grad_(True) to measure all of them."
        )
    return tuple(layers)


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
