"""How many images the passes of one measurement take: planned, or as the caller says, within the memory."""

from collections.abc import Sequence
from dataclasses import dataclass

from .inputs import DEFAULT_BATCH, JOINT_BATCHES
from .memory import PEAK, Need, default_memory, images_within, planned_images
from .plan import Plan
from .survey import Survey
from .vectors import Estimator

SUMMED = ("batch", "loop")  # engines that hold the gradient of one batch or image, and its squares in float64


@dataclass(frozen=True)
class Sizes:
    """Images in a pass: `batch` where the batches are cut here, at most `limit` of a caller's batch."""

    batch: int
    limit: int | None = None  # None: as they come


@dataclass(frozen=True)
class Asked:
    """What the caller says about passes."""

    images: int | None = None  # in all, where that is known
    batch_size: int | None = None
    max_memory: int | None = None
    sharing: int = 1  # processes on this machine


def sizes(asked: Asked, found: Survey, plans: Sequence[Plan], estimators: Sequence[Estimator]) -> Sizes:
    """How many images in a pass.

    Where the images of a batch are one joint model its size is part of what is measured: memory does not decide it.
    Where a layer has one value a batch, its standard error wants JOINT_BATCHES of them.

    Raises:
        ValueError: max_memory, where given, is too small.
    """
    device = next(iter(plans[0].layers[0].parameters.values())).device
    need, divisible = need_of(found, plans, estimators), found.joint is None
    if asked.batch_size is not None:
        return Sizes(asked.batch_size, asked.batch_size if divisible else None)
    batch, limit = DEFAULT_BATCH, None
    if need is not None and divisible:
        budget = asked.max_memory or default_memory(device, sharing=asked.sharing)
        batch, limit = planned_images(need, budget, device.type), max(1, images_within(need, budget))
    if asked.images is not None and divisible and any(plan.joint for plan in plans):
        batch = min(batch, max(1, asked.images // JOINT_BATCHES))
    _check(asked.max_memory, need, images=1 if divisible else batch)
    return Sizes(batch, limit)


def _check(max_memory: int | None, need: Need | None, *, images: int) -> None:
    if max_memory is None or need is None or need.of(images) <= max_memory:
        return
    if images == 1:
        what, remedy = "the passes over one image", "smaller images, or engine='auto', which keeps least"
    else:
        what, remedy = f"a batch of {images} images, which are one joint model", "a smaller batch_size"
    raise ValueError(
        f"max_memory must be at least {need.of(images):,} bytes for {what}; got {max_memory:,}. Raise it, or use "
        f"{remedy}."
    )


def why_too_large(images: int, need: Need | None = None, *, joint: str | None = None, exact: bool = False) -> str:
    """What to say where memory ran out for images that are not divided any further."""
    which = "a single image" if images == 1 else f"{images} images"
    takes = "" if need is None else f", which takes about {need.of(images):,} bytes beside the model"
    why = f"; they are one joint model ({joint}) and cannot be divided" if joint and images > 1 else ""
    remedies = ["a smaller batch_size" if why else "smaller images", "another device"]
    if exact:
        remedies.insert(0, "estimator='propagated' (one vector an image in place of one for each output)")
    return f"memory ran out measuring {which}{takes}{why}. Use {', '.join(remedies[:-1])} or {remedies[-1]}."


def need_of(found: Survey, plans: Sequence[Plan], estimators: Sequence[Estimator]) -> Need | None:
    """Bytes that a pass takes; None where the model does not show what it keeps."""
    if found.kept_bytes is None:
        return None
    layers = plans[0].layers
    width = max(p.element_size() for layer in layers for p in layer.parameters.values())
    # the outputs, and one vector: its random numbers and itself in float64, and as the model wants it
    outputs = found.outputs * (2 * width + 16)
    columns = found.outputs if any(estimator.name == "exact" for estimator in estimators) else 0
    values = columns * len(layers) * 16  # a float64 for each layer, and again when they are put together
    peak = max(PEAK[engine] for plan in plans for engine in plan.engines.values())
    return Need(
        kept=found.kept_bytes,
        image=int(peak * found.kept_bytes) + outputs + values,
        gradients=max(sum(_gradient_bytes(plan, "vmap")) for plan in plans),
        fixed=max(sum(held) + 4 * max(held, default=0) for plan in plans for held in [_gradient_bytes(plan, *SUMMED)]),
    )


def _gradient_bytes(plan: Plan, *engines: str) -> list[int]:
    """Of each parameter of the layers that these engines measure."""
    layers = [layer for engine in engines for layer in plan.measured_by(engine)]
    return [p.numel() * p.element_size() for layer in layers for p in layer.parameters.values()]
