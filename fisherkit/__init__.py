"""fisherkit: per-layer Fisher information through training, deficits, critical learning periods."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# public name -> module that defines it; torch is imported only when one of these is asked for
_HOMES = {
    "FisherSpectrum": "fisherkit.fisher",
    "FisherTrace": "fisherkit.fisher",
    "FisherTracker": "fisherkit.recording",
    "ImageSet": "fisherkit.images",
    "Trajectory": "fisherkit.recording",
    "fisher_spectrum": "fisherkit.fisher",
    "fisher_trace": "fisherkit.fisher",
    "fisher_traces": "fisherkit.fisher",
    "load_images": "fisherkit.images",
    "read": "fisherkit.recording",
    "read_study": "fisherkit.recording",
    "verify": "fisherkit.fisher",
}
_ROOMS = ("analysis", "conditions", "fisher", "images", "models", "plots", "recording", "studies", "training")

__all__ = [*_HOMES, *_ROOMS]  # noqa: PLE0604

if TYPE_CHECKING:
    from fisherkit.fisher import FisherSpectrum as FisherSpectrum
    from fisherkit.fisher import FisherTrace as FisherTrace
    from fisherkit.fisher import fisher_spectrum as fisher_spectrum
    from fisherkit.fisher import fisher_trace as fisher_trace
    from fisherkit.fisher import fisher_traces as fisher_traces
    from fisherkit.fisher import verify as verify
    from fisherkit.images import ImageSet as ImageSet
    from fisherkit.images import load_images as load_images
    from fisherkit.recording import FisherTracker as FisherTracker
    from fisherkit.recording import Trajectory as Trajectory
    from fisherkit.recording import read as read
    from fisherkit.recording import read_study as read_study


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name in _ROOMS:
        return import_module(f"fisherkit.{name}")
    raise AttributeError(f"module 'fisherkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
