"""Score vectors of a sample, held for as many layers at a time as fit into memory: one pass over the images a group.

A layer's score vectors are held as its gradients, or as what its closed form makes them of (inputs and output
gradients), whichever is smaller with what forming the Gram matrix then takes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from .forms.form import PIECE
from .forms.table import find_form
from .ghost import responses
from .gram import Factors, pairs_are_cheaper, places_of
from .inputs import Batch
from .layers import Layer
from .losses import Loss
from .measurement import SURVEYED_IMAGES
from .noise import ImageNoise
from .per_image import looped_gradients, mapped_gradients, outputs_alone
from .plan import Plan
from .vectors import Estimator, Vectors

POSITIONED = (nn.Linear, nn.Embedding)  # their positions may be filled up: where g is zero, so is the gradient
GRADIENTS = {"vmap": mapped_gradients, "loop": looped_gradients}


@dataclass(frozen=True, eq=False)
class Sample:
    """The images and the vectors that are sent back for each of them, the same in every pass."""

    model: nn.Module
    batches: list[Batch]
    loss: Loss
    estimator: Estimator
    seed: int

    @property
    def images(self) -> int:
        """How many."""
        return sum(map(len, self.batches))

    @property
    def few(self) -> Batch:
        """The first images."""
        return self.batches[0].head(SURVEYED_IMAGES)

    @property
    def columns(self) -> int:
        """Vectors an image, of the first images."""
        return len(self.vectors(0, self.few.labels)(outputs_alone(self.model, self.few.inputs)))

    def enumerated(self) -> Iterator[tuple[int, Batch]]:
        """The position of each batch's first image, and the batch."""
        start = 0
        for batch in self.batches:
            yield start, batch
            start += len(batch)

    def vectors(self, start: int, labels: Tensor | None) -> Callable[[Tensor], Vectors]:
        """The vectors of the images from `start` on, from their outputs."""

        def given(outputs: Tensor) -> Vectors:
            likelihood = self.loss.likelihood(outputs.detach(), labels)
            shape = (len(outputs), likelihood.noise)
            uniforms = ImageNoise.draws(self.seed, start, shape, outputs.device)
            return self.estimator.vectors(likelihood, uniforms, outputs)

        return given


@dataclass(frozen=True, eq=False)
class Piece:
    """A layer, or one of its parameters, whose score vectors are held together."""

    layer: Layer
    engine: str
    built: bool  # whether its gradients are held, or what they are made of
    held_bytes: int  # through a pass over all images
    forming_bytes: int  # while its Gram matrix is formed
    number: int = 1  # this piece of the layer's `pieces`
    pieces: int = 1

    @property
    def working_bytes(self) -> int:
        """At a time: while what came batch by batch is put together, or while the Gram matrix is formed."""
        return max(self.held_bytes, self.forming_bytes)

    @property
    def last(self) -> bool:
        """Whether the layer is complete with it."""
        return self.number == self.pieces


@dataclass(frozen=True, eq=False)
class Built:
    """The score vectors themselves."""

    gradients: Float[Tensor, "vectors numbers"]
    image: Int64[Tensor, " vectors"]  # whose each is


def make_pieces(sample: Sample, plan: Plan) -> list[Piece]:
    """Every layer, with what holding it takes, from a pass over the first images."""
    ghosts, specimens, columns = plan.measured_by("ghost"), {}, sample.columns

    def keep(layer: Layer, a: Tensor) -> Callable[[Tensor], Tensor]:
        def given(g: Tensor) -> Tensor:
            specimens[layer.name] = (a[:1], g[:1])
            return g

        return given

    vectors = sample.vectors(0, sample.few.labels)
    if ghosts:
        responses(sample.model, sample.few.inputs, lambda z: Vectors(1, lambda _: vectors(z)[0]), ghosts, keep)
    pieces: list[Piece] = []
    for layer in plan.layers:
        if layer.name in specimens:
            pieces.append(_ghost_piece(layer, *specimens[layer.name], sample=sample, columns=columns))
        else:
            pieces += _plain_pieces(layer, plan.engines[layer.name], vectors=sample.images * columns)
    return pieces


def _ghost_piece(layer: Layer, a: Tensor, g: Tensor, *, sample: Sample, columns: int) -> Piece:
    images, vectors = sample.images, sample.images * columns
    input_bytes, output_bytes = (x.numel() * x.element_size() for x in (a, g))
    parts, whole = images * input_bytes + vectors * output_bytes, vectors * layer.size * g.element_size()
    by_pairs = pairs_are_cheaper(layer, vectors=vectors, images=images, places=places_of(layer, g))
    # the input once a vector, padded, and one view of it; the output gradient in another order
    forming = 0 if by_pairs else vectors * (3 * input_bytes + output_bytes)
    # blocks of a small gradient come uncut, so that those of one batch fit to those of another; rows of an Embedding
    # are there only where their tokens are
    uncut = max(map(len, sample.batches)) * layer.size <= PIECE and not isinstance(layer.module, nn.Embedding)
    built = uncut and whole <= parts + forming
    forming_bytes = _piece_bytes(vectors * layer.size) + (0 if built else forming)
    return Piece(layer, "ghost", built, whole if built else parts, forming_bytes)


def _plain_pieces(layer: Layer, engine: str, *, vectors: int) -> Iterator[Piece]:
    """A layer without a closed form: whole where its gradient is short, else one parameter at a time."""
    names = list(layer.parameters)
    groups = [names] if layer.size < vectors else [[name] for name in names]
    for number, group in enumerate(groups, 1):
        parameters = {name: layer.parameters[name] for name in group}
        # a complex number is two
        size = sum(torch.view_as_real(p).numel() if p.is_complex() else p.numel() for p in parameters.values())
        item = max(torch.finfo(p.dtype).bits // 8 for p in parameters.values())
        held = vectors * size * item
        yield Piece(
            replace(layer, parameters=parameters),
            engine,
            built=True,
            held_bytes=held,
            forming_bytes=_piece_bytes(vectors * size),
            number=number,
            pieces=len(groups),
        )


def _piece_bytes(numbers: int) -> int:
    """A piece of a gradient, and the same in float64."""
    return 16 * min(numbers, PIECE)


def collect(sample: Sample, pieces: Sequence[Piece]) -> list[Built | Factors]:
    """The score vectors of the pieces, by one forward pass over the images and a backward pass for each vector."""
    stores = [_Store(piece) for piece in pieces]
    ghosts = {store.piece.layer.name: store for store in stores if store.piece.engine == "ghost"}

    def respond(layer: Layer, a: Tensor) -> Callable[[Tensor], Tensor]:
        return ghosts[layer.name].respond(a)

    for start, batch in sample.enumerated():
        vectors = sample.vectors(start, batch.labels)
        if ghosts:
            layers = [store.piece.layer for store in ghosts.values()]
            rows = responses(sample.model, batch.inputs, vectors, layers, respond)
            for name, store in ghosts.items():
                store.add(torch.stack([row.pop(name) for row in rows], 1), start)
        for store in stores:
            if store.piece.engine != "ghost":
                gradients = GRADIENTS[store.piece.engine]
                store.add(gradients(sample.model, batch.inputs, vectors, store.piece.layer), start)
    return [store.joined() for store in stores]


@dataclass(eq=False)
class _Store:
    """What was held of one piece so far, batch by batch."""

    piece: Piece
    inputs: list[Tensor] = field(default_factory=list)
    rows: list[Tensor] = field(default_factory=list)
    image: list[Tensor] = field(default_factory=list)

    def respond(self, a: Tensor) -> Callable[[Tensor], Tensor]:
        layer, form = self.piece.layer, find_form(self.piece.layer)
        assert form is not None
        if not self.piece.built:
            self.inputs.append(a)
            return lambda g: g.detach().clone(memory_format=torch.contiguous_format)
        return lambda g: torch.cat([block.flatten(1) for block in form.blocks(layer, a, g)], 1)

    def add(self, values: Float[Tensor, "images vectors *_"], start: int) -> None:
        self.rows.append(values.flatten(0, 1))
        images = torch.arange(start, start + values.shape[0], device=values.device)
        self.image.append(images.repeat_interleave(values.shape[1]))

    def joined(self) -> Built | Factors:
        layer, image = self.piece.layer, torch.cat(self.image)
        rows = _joined(self.rows, layer)
        self.rows.clear()
        return Built(rows, image) if self.piece.built else Factors(_joined(self.inputs, layer), rows, image)


def _joined(parts: Sequence[Tensor], layer: Layer) -> Tensor:
    """One batch after another; batches of different lengths are filled up with zeros.

    Raises:
        ValueError: sizes differ, and zeros would not be the same.
    """
    if len({part.shape[1:] for part in parts}) > 1:
        if not isinstance(layer.module, POSITIONED):
            shapes = sorted({tuple(part.shape[1:]) for part in parts})
            raise ValueError(
                f"images must have one size for the spectrum of layer {layer.name!r}, which met "
                f"{' and '.join(map(str, shapes[:2]))}; give images of one size."
            )
        longest = [max(sizes) for sizes in zip(*(part.shape[1:] for part in parts), strict=True)]
        parts = [_filled(part, longest) for part in parts]
    return torch.cat(list(parts))


def _filled(part: Tensor, sizes: Sequence[int]) -> Tensor:
    missing = [size - there for size, there in zip(sizes, part.shape[1:], strict=True)]
    return F.pad(part, [end for amount in reversed(missing) for end in (0, amount)])
