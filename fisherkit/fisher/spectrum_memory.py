"""What a spectrum takes: images in a pass, and the layers whose score vectors are held at the same time."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from .memory import default_memory, planned_images
from .plan import Plan
from .scores import Piece, Sample, make_pieces
from .sizes import need_of
from .survey import Survey
from .undisturbed import device_of

MATRICES = 4  # as large as a Gram matrix, that are there at once
SHARE_OF_PASSES = 0.5  # of the memory, at most, where the images in a pass are chosen here


@dataclass(frozen=True)
class Budget:
    """Bytes: in all, and of the passes over the images; score vectors are held through both passes and matrices."""

    limit: int
    passes: int
    images: int
    columns: int

    def needed(self, held: float, working: float, images: int | None = None) -> float:
        """What pieces that are held together take for so many images (by default all)."""
        share = 1.0 if images is None else images / self.images
        vectors = share * self.images * self.columns
        return share * held + max(self.passes, share * working + MATRICES * 8 * vectors**2)

    def fits(self, pieces: Sequence[Piece]) -> bool:
        """Whether these can be held together."""
        working = max((piece.working_bytes for piece in pieces), default=0)
        return self.needed(sum(piece.held_bytes for piece in pieces), working) <= self.limit


def divided(
    sample: Sample, found: Survey, plan: Plan, *, batch_size: int | None, max_memory: int | None
) -> tuple[Sample, Budget]:
    """The sample in batches that fit, unless the caller says how large they are, and what there is for it."""
    device = device_of(sample.model)
    limit = max_memory or default_memory(device)
    need = need_of(found, [plan], [sample.estimator])
    size = batch_size
    if need is not None and size is None:
        size = planned_images(need, int(limit * SHARE_OF_PASSES), device.type)
    if size is not None:
        parts = [batch.between(i, i + size) for batch in sample.batches for i in range(0, len(batch), size)]
        sample = replace(sample, batches=parts)
    passes = 0 if need is None else need.of(max(map(len, sample.batches)))
    return sample, Budget(limit, passes, sample.images, sample.columns)


def grouped(sample: Sample, plan: Plan, budget: Budget) -> list[list[Piece]]:
    """The layers, or pieces of them, in order, as many in a group as fit into the memory.

    Raises:
        ValueError: a single piece does not fit; says what it needs, and how many images would fit.
    """
    pieces = make_pieces(sample, plan)
    largest = max(pieces, key=lambda piece: piece.held_bytes + piece.working_bytes)
    if not budget.fits([largest]):
        raise ValueError(_why_too_large(largest, budget))
    groups: list[list[Piece]] = []
    for piece in pieces:
        if groups and budget.fits([*groups[-1], piece]):
            groups[-1].append(piece)
        else:
            groups.append([piece])
    return groups


def _why_too_large(piece: Piece, budget: Budget) -> str:
    images, columns = budget.images, budget.columns

    def needed(count: int) -> float:
        return budget.needed(piece.held_bytes, piece.working_bytes, count)

    fitting = next((count for count in range(images - 1, 0, -1) if needed(count) <= budget.limit), None)
    remedy = f"use max_images={fitting}" if fitting else "raise it"
    return (
        f"max_memory must be at least {needed(images):,.0f} bytes for layer {piece.layer.name!r} "
        f"({images * columns:,} score vectors: {images} images x {columns}); got {budget.limit:,} (by default half of "
        f"what is free); {remedy}" + (", or estimator='propagated' (one vector an image)." if columns > 1 else ".")
    )
