"""Networks for small images, module-style so that every Fisher engine can take them."""

from fisherkit.models.build import MODELS, build_model

__all__ = ["MODELS", "build_model"]
