"""A model of the user's own: `package.module:callable`."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from fisherkit.conditions.callables import current_directory_importable, load_callable
from fisherkit.conditions.grammar import whole_or_number


def custom_model(
    target: str,
    *,
    classes: int,
    channels: int,
    image_size: int,
    width: str | None,
    options: Mapping[str, str],
) -> nn.Module:
    """What the callable returns for those of the arguments that its signature accepts.

    Width and options come as int, float or bool where they are written so, otherwise as text; they must be
    accepted. Raises ValueError naming the target where it fails or returns no module.
    """
    build = load_callable(target, "model")
    chosen = dict(options) if width is None else {"width": width, **options}
    given = {"classes": classes, "channels": channels, "image_size": image_size}
    for name in given.keys() & options.keys():
        raise ValueError(f"options of {target} must not be what the images decide; got {name!r}.")
    arguments = _accepted(target, build, given, {name: literal(text) for name, text in chosen.items()})
    with current_directory_importable():
        try:
            model = build(**arguments)
        except Exception as error:
            called = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
            raise ValueError(f"model {target}({called}) failed: {type(error).__name__}: {error}.") from error
    if not isinstance(model, nn.Module):
        raise ValueError(f"model {target} must return a torch.nn.Module; got a {type(model).__name__}.")
    return model


def _accepted(
    target: str, build: Callable[..., Any], given: Mapping[str, Any], chosen: Mapping[str, Any]
) -> dict[str, Any]:
    """All chosen arguments and those of the given ones that the signature accepts."""
    parameters = inspect.signature(build).parameters.values()
    named = [each for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
    names = [each.name for each in named]
    anything = any(each.kind is each.VAR_KEYWORD for each in parameters)
    unknown = [name for name in chosen if name not in names and not anything]
    if unknown:
        others = [name for name in names if name not in given]
        choices = f"Choose from {', '.join(others)}." if others else "It takes no options."
        raise ValueError(f"options of {target} must be in its signature; got {unknown[0]!r}. {choices}")
    arguments = {name: value for name, value in given.items() if anything or name in names} | dict(chosen)
    missing = [each.name for each in named if each.default is each.empty and each.name not in arguments]
    if missing:
        raise ValueError(f"options of {target} must give what its signature requires: {', '.join(missing)}; got none.")
    return arguments


def literal(text: str) -> int | float | bool | str:
    """`true` and `false` as bool, numbers as int or float, everything else as it is."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return whole_or_number(text, "value")
    except ValueError:
        return text
