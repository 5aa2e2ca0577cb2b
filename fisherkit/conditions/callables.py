"""Callables named as `package.module:callable`, importable as in `python -m` from the current directory."""

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from fisherkit.conditions.grammar import is_target


@contextmanager
def current_directory_importable() -> Iterator[None]:
    """The current directory first on the import path, as for `python -m`, while the context lasts."""
    entry = os.getcwd()
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        if entry in sys.path:
            sys.path.remove(entry)


def load_callable(target: str, kind: str) -> Callable[..., Any]:
    """The callable that `package.module:callable` names; raises ValueError naming kind and target."""
    if not is_target(target):
        raise ValueError(f"{kind} must have the form package.module:callable; got {target!r}.")
    module_name, _, attribute = target.partition(":")
    importlib.invalidate_caches()
    with current_directory_importable():
        try:
            module = importlib.import_module(module_name)
        except (Exception, SystemExit) as error:
            raise ValueError(
                f"{kind} {target!r} must name an importable module (the current directory counts); "
                f"importing {module_name!r} failed: {type(error).__name__}: {error}."
            ) from error
    found = getattr(module, attribute, None)
    if not callable(found):
        problem = "is missing" if not hasattr(module, attribute) else f"is a {type(found).__name__}"
        place = getattr(module, "__file__", None) or module_name
        raise ValueError(f"{kind} {target!r} must name a callable; {attribute!r} {problem} in {place}.")
    return found  # type: ignore[no-any-return]
