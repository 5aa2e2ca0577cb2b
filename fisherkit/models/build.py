"""From a name, a width and options, all texts, to an initialised network."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from fisherkit.conditions.grammar import is_target, unknown_name, whole_number
from fisherkit.models.allcnn import allcnn
from fisherkit.models.custom import custom_model
from fisherkit.models.mlp import linear, mlp
from fisherkit.models.resnet import ResNet18
from fisherkit.models.vit import VisionTransformer


def build_model(
    name: str,
    *,
    classes: int,
    channels: int,
    image_size: int,
    width: str | None = None,
    options: Mapping[str, str] | None = None,
    seed: int = 0,
) -> nn.Module:
    """The named network, or what `package.module:callable` makes, initialised from the seed.

    `width` and `options` are texts as on the command line. The global random state is left alone. Raises
    ValueError where a name, width or option is not one.
    """
    sizes = {"classes": classes, "channels": channels, "image_size": image_size}
    for argument, value in sizes.items():
        if value < 1:
            raise ValueError(f"{argument} must be at least 1; got {value!r}.")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        if name not in _FORMS and is_target(name):
            return custom_model(name, **sizes, width=width, options=options or {})
        if name not in _FORMS:
            raise unknown_name("model", name, MODELS, extra=" or package.module:callable")
        return _FORMS[name].make(name, sizes=sizes, width=width, options=options or {})


def positive(text: str, name: str) -> int:
    """A whole number of at least 1."""
    value = whole_number(text.strip(), name)
    if value < 1:
        raise ValueError(f"{name} must be at least 1; got {text!r}.")
    return value


def positives(text: str, name: str) -> tuple[int, ...]:
    """Whole numbers of at least 1 between dashes or commas."""
    if re.fullmatch(r"\s*[0-9]+(\s*[-,]\s*[0-9]+)*\s*", text) is None:
        raise ValueError(f"{name} must be whole numbers with dashes or commas, as in 300-100; got {text!r}.")
    return tuple(positive(part, name) for part in re.split("[-,]", text))


def boolean(text: str, name: str) -> bool:
    """`true` or `false`."""
    if text.strip().lower() not in ("true", "false"):
        raise ValueError(f"{name} must be true or false; got {text!r}.")
    return text.strip().lower() == "true"


@dataclass(frozen=True)
class _Form:
    """How a built-in model is made: its callable, which sizes it needs, and what its texts mean."""

    build: Callable[..., nn.Module]
    needs: tuple[str, ...] = ("classes", "channels", "image_size")
    width: Callable[[str, str], Any] | None = positive
    options: Mapping[str, Callable[[str, str], Any]] = field(default_factory=dict)

    def make(self, name: str, *, sizes: Mapping[str, int], width: str | None, options: Mapping[str, str]) -> nn.Module:
        arguments: dict[str, Any] = {size: sizes[size] for size in self.needs}
        if width is not None:
            if self.width is None:
                raise ValueError(f"width must be left out, for {name} has none; got {width!r}.")
            arguments["width"] = self.width(width, f"width of {name}")
        for option, text in options.items():
            if option not in self.options:
                raise self._unknown_option(name, option)
            arguments[option] = self.options[option](text, f"{option} of {name}")
        try:
            return self.build(**arguments)
        except (RuntimeError, TypeError, MemoryError, OverflowError) as error:  # torch's, for sizes that cannot be had
            reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            raise ValueError(f"width or options of {name} must make a model that can be had: {reason}") from error

    def _unknown_option(self, name: str, option: str) -> ValueError:
        if not self.options:
            return ValueError(f"options must be empty, for {name} has none; got {option!r}.")
        return unknown_name(f"option of {name}", option, tuple(self.options))


_FORMS: Mapping[str, _Form] = {
    "resnet18": _Form(ResNet18, needs=("classes", "channels")),
    "allcnn": _Form(allcnn, needs=("classes", "channels"), options={"last_bn_relu": boolean}),
    "mlp": _Form(mlp, width=positives, options={"batchnorm": boolean}),
    "linear": _Form(linear, width=None),
    "vit_tiny": _Form(VisionTransformer, options={"depth": positive, "heads": positive, "patch": positive}),
}
MODELS: tuple[str, ...] = tuple(_FORMS)
