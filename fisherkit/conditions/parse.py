"""From one text to one condition; raises ValueErrors about the part of the text that is wrong."""

import math
from collections.abc import Mapping

from fisherkit.conditions.blur import Blur
from fisherkit.conditions.custom import CustomDeficit
from fisherkit.conditions.deficit import Deficit
from fisherkit.conditions.events import Event, LrRestart, LrScale, ShrinkPerturb
from fisherkit.conditions.grammar import (
    Term,
    dataclass_arguments,
    epoch_of,
    is_target,
    number,
    split_term,
    unknown_name,
    whole_or_number,
    window_of,
)
from fisherkit.conditions.labels import Permute, Shuffle
from fisherkit.conditions.pixels import Flip, Grayscale, Noise, Occlude
from fisherkit.conditions.window import WHOLE_RUN, Window, Windowed

DEFICITS: Mapping[str, type[Deficit]] = {
    "blur": Blur,
    "flip": Flip,
    "noise": Noise,
    "permute": Permute,
    "shuffle": Shuffle,
    "grayscale": Grayscale,
    "occlude": Occlude,
}
EVENTS: Mapping[str, type[Event]] = {
    "shrink_perturb": ShrinkPerturb,
    "lr_restart": LrRestart,
    "lr_scale": LrScale,
}
AUGMENTATIONS = ("crop", "flip")


def parse_deficit(text: str) -> Windowed[Deficit]:
    """`name[(arguments)][:window]`, the name a built-in one or `package.module:callable`."""
    term = split_term(text, known=DEFICITS)
    return Windowed(_deficit(term), window_of(term))


def _deficit(term: Term) -> Deficit:
    if term.name in DEFICITS:
        kind = DEFICITS[term.name]
        return kind(**dataclass_arguments(kind, term.arguments, name=term.name))
    if is_target(term.name):
        arguments = (whole_or_number(part, f"argument of {term.name}") for part in term.arguments)
        return CustomDeficit(term.name, tuple(arguments))
    raise unknown_name("name", term.name, tuple(DEFICITS), extra=" or package.module:callable")


def parse_event(text: str) -> Event:
    """`name[(arguments)]:epoch`."""
    term = split_term(text, known=EVENTS)
    if term.name not in EVENTS:
        raise unknown_name("name", term.name, tuple(EVENTS))
    kind = EVENTS[term.name]
    arguments = dataclass_arguments(kind, term.arguments, name=term.name, given=["epoch"])
    return kind(epoch=epoch_of(term), **arguments)


def parse_weight_decay(text: str) -> Windowed[float]:
    """`VALUE[:window]`."""
    value, window = _value_and_window(text)
    return Windowed(checked_weight_decay(number(value, "weight decay")), window)


def parse_fraction(text: str) -> Windowed[float]:
    """`VALUE[:window]`."""
    value, window = _value_and_window(text)
    return Windowed(checked_fraction(number(value, "fraction")), window)


def parse_augment(text: str) -> Windowed[tuple[str, ...]]:
    """`crop+flip[:window]`, `crop`, `flip` or `none`."""
    value, window = _value_and_window(text)
    names = () if value == "none" else tuple(part.strip() for part in value.split("+"))
    return Windowed(checked_augment(names), window)


def _value_and_window(text: str) -> tuple[str, Window]:
    value, colon, window = text.partition(":")
    return value.strip(), Window.parse(window.strip()) if colon else WHOLE_RUN


def checked_weight_decay(value: float) -> float:
    """The value, if it is one."""
    if not 0 <= value < math.inf:
        raise ValueError(f"weight decay must be finite and >= 0; got {value!r}.")
    return value


def checked_fraction(value: float) -> float:
    """The value, if it is one."""
    if not 0 < value <= 1:
        raise ValueError(f"fraction must be above 0 and at most 1; got {value!r}.")
    return value


def checked_augment(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names in the order they are applied in, if each is one."""
    if any(name not in AUGMENTATIONS for name in names) or len(set(names)) < len(names):
        raise ValueError(
            f"augmentation must be crop, flip, crop+flip or none, each name once; got {'+'.join(names)!r}."
        )
    return tuple(name for name in AUGMENTATIONS if name in names)
