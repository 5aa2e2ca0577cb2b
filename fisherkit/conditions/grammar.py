"""How conditions are written: `name[(arguments)][:place]`, where the place is a window or an epoch.

Functions here raise ValueErrors about a part of a text; `parse_each` adds the whole text and an example.
"""

import difflib
import math
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any, TypeVar

from fisherkit.conditions.window import Window

Parsed = TypeVar("Parsed")

_WHOLE = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_LONGEST_NUMBER = 40


@dataclass(frozen=True)
class Term:
    """The parts of a text; `arguments` is empty where there are no brackets, `place` None without a colon."""

    name: str
    arguments: tuple[str, ...]
    place: str | None


def parse_each(
    kind: str, texts: Sequence[str], parse_one: Callable[[str], Parsed], *, example: str
) -> tuple[Parsed, ...]:
    """Each text parsed; a ValueError names the kind, the whole text, what is wrong, and a text that works."""
    if isinstance(texts, str):
        raise ValueError(f"{kind} must be a sequence of texts; got the single text {texts!r}. Write [{texts!r}].")
    parsed = []
    for text in texts:
        try:
            parsed.append(parse_one(text))
        except ValueError as error:
            raise ValueError(f"{kind} {text!r}: {error} For example: {example!r}.") from None
    return tuple(parsed)


def split_term(text: str, known: Collection[str]) -> Term:
    """The name, arguments and place of a text.

    A colon after a known name begins the place; otherwise `package.module:callable` is one name.
    """
    head, bracket, rest = text.partition("(")
    inside, closing, tail = rest.partition(")")
    if bracket and not closing:
        raise ValueError(f"arguments must end with a closing bracket; got {bracket + rest!r}.")
    if bracket and tail.strip() and not tail.strip().startswith(":"):
        raise ValueError(f"after the arguments must come nothing or a colon; got {tail!r}.")
    arguments = tuple(part.strip() for part in inside.split(",")) if inside.strip() else ()
    if bracket:
        place = tail.strip()[1:].strip() if tail.strip() else None
        return Term(head.strip(), arguments, place)
    return Term(*_split_place(head, known))


def _split_place(text: str, known: Collection[str]) -> tuple[str, tuple[str, ...], str | None]:
    parts = [part.strip() for part in text.split(":")]
    first_two = ":".join(parts[:2])
    custom = parts[0] not in known and is_target(first_two)
    name, rest = (first_two, parts[2:]) if custom else (parts[0], parts[1:])
    if len(rest) > 1:
        raise ValueError(f"after the name must come at most one colon; got {text!r}.")
    return name, (), rest[0] if rest else None


def is_target(name: str) -> bool:
    """Whether the name has the form `package.module:callable`."""
    module, colon, attribute = name.partition(":")
    return bool(colon) and attribute.isidentifier() and all(part.isidentifier() for part in module.split("."))


def window_of(term: Term) -> Window:
    """The window of a term; the whole run where it names none."""
    return Window(0) if term.place is None else Window.parse(term.place)


def epoch_of(term: Term) -> int:
    """The epoch of an event."""
    if term.place is None:
        raise ValueError(f"{term.name} must name its epoch after a colon; got none.")
    if re.fullmatch("[0-9]{1,9}", term.place) is None:
        raise ValueError(f"epoch of {term.name} must be a whole number >= 0; got {term.place!r}.")
    return int(term.place)


def whole_number(text: str, name: str) -> int:
    """The integer that the text writes."""
    if _WHOLE.fullmatch(text) is None or len(text) > _LONGEST_NUMBER:
        raise ValueError(f"{name} must be a whole number; got {text!r}.")
    return int(text)


def number(text: str, name: str) -> float:
    """The finite number that the text writes."""
    if _NUMBER.fullmatch(text) is None or len(text) > _LONGEST_NUMBER:
        raise ValueError(f"{name} must be a number; got {text!r}.")
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite; got {text!r}.")
    return value


def whole_or_number(text: str, name: str) -> int | float:
    """An int where the text writes a whole number, otherwise a float."""
    return whole_number(text, name) if _WHOLE.fullmatch(text) else number(text, name)


def dataclass_arguments(
    kind: type, arguments: Sequence[str], *, name: str, given: Iterable[str] = ()
) -> dict[str, Any]:
    """The arguments of a frozen dataclass from texts, by position, but for the fields in `given`."""
    wanted = [field for field in fields(kind) if field.name not in set(given)]
    names = ", ".join(field.name for field in wanted)
    if len(arguments) > len(wanted):
        rule = f"at most {len(wanted)} ({names})" if wanted else "none"
        raise ValueError(f"arguments of {name} must be {rule}; got {len(arguments)}.")
    missing = [field.name for field in wanted[len(arguments) :] if field.default is MISSING]
    if missing:
        raise ValueError(f"arguments of {name} must be ({names}); got no {missing[0]}.")
    return {
        field.name: (whole_number if field.type is int else number)(text, f"{field.name} of {name}")
        for field, text in zip(wanted, arguments, strict=False)
    }


def unknown_name(kind: str, name: str, choices: Sequence[str], *, extra: str = "") -> ValueError:
    """The error for a name that is none of the choices, with the nearest one."""
    nearest = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    return ValueError(f"{kind} must be one of {', '.join(choices)}{extra}; got {name!r}.{hint}")
