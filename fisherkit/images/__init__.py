"""Image sets: where they come from (`load_images`, `SOURCES`) and the value every other part reads (`ImageSet`)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .catalogue import SOURCES

__all__ = ["SOURCES", "ImageSet", "load_images"]

if TYPE_CHECKING:
    from .image_set import ImageSet as ImageSet
    from .load import load_images as load_images

# public name -> module that defines it; these import torch, the catalogue does not
_HOMES = {"ImageSet": ".image_set", "load_images": ".load"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
