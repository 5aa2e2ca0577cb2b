"""Image sets: where they come from (`load_images`) and the value every other part reads (`ImageSet`)."""

from .image_set import ImageSet

__all__ = ["ImageSet"]
