"""Values of a grid, from texts and numbers that were asked for."""

import math
from collections.abc import Mapping, Sequence
from typing import Any


def numbers(name: str, what: str, texts: Sequence[str], *, low: float, high: float = math.inf) -> tuple[float, ...]:
    """The numbers that the texts write, ascending, each once: from `low` to a finite `high`, or finite and above `low`.

    Raises:
        ValueError: One of them is not; the message names the argument and what it holds.
    """
    found = set()
    for text in texts:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (low <= value <= high if high < math.inf else low < value < math.inf):
            rule = f"from {low:g} to {high:g}" if high < math.inf else f"above {low:g}, such as 0.01,0.1"
            raise ValueError(f"{name} must be {what} {rule}; got {text!r}.")
        found.add(value)
    if not found:
        raise ValueError(f"{name} must be at least one of the {what}; got none.")
    return tuple(sorted(found))


def grid_of(name: str, values: Sequence[Any], given: Mapping[str, Any], *, option: str) -> tuple[Any, ...]:
    """The values of a grid, each once; None, that of the run's options, where there are none.

    Raises:
        ValueError: There are, and the run's options have one too.
    """
    if values and option in given:
        raise ValueError(f"{option} must be left out where {name} are given, for they are what the study varies.")
    return tuple(dict.fromkeys(values)) or (None,)
