"""Estimators: which vectors v are sent back from the outputs, with E[v v^T] = H.

    estimator     v                                          passes          combined by
    exact         the columns of a square root of H          its columns     sum
    sampled       the score at labels drawn from the model   draws           mean
    propagated    S eps, eps random signs, S S^T = H         draws           mean
    empirical     the score at the given labels              1               mean

Drawing is kept apart from computing: `noise` draws, `vectors_given` is a pure function of what was drawn.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import torch
from jaxtyping import Float
from torch import Tensor

from .losses import Loss

ESTIMATORS = ("exact", "sampled", "propagated", "empirical")
STOCHASTIC = ("sampled", "propagated")  # their vectors have mean zero given the image: `batch` is valid


class Vectors(Sequence[Tensor]):
    """A sequence of vectors [images, ...] made one at a time, so that 1,000 columns never lie in memory."""

    def __init__(self, count: int, make: Callable[[int], Tensor]) -> None:
        self._count, self._make = count, make

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Tensor]: ...
    def __getitem__(self, index: int | slice) -> Tensor | Sequence[Tensor]:
        if isinstance(index, slice):
            return [self._make(k) for k in range(*index.indices(self._count))]
        if not -self._count <= index < self._count:
            raise IndexError(index)
        return self._make(index % self._count)

    def __iter__(self) -> Iterator[Tensor]:
        return (self._make(k) for k in range(self._count))


def backward_passes(
    outputs: Tensor, wanted: Sequence[Tensor], vectors: Sequence[Tensor]
) -> Iterator[tuple[Tensor | None, ...]]:
    """J^T v for each vector v, one backward pass each through the one graph; None where there is no path."""
    for k, v in enumerate(vectors):
        last = k + 1 == len(vectors)
        yield torch.autograd.grad(outputs, wanted, v, retain_graph=not last, allow_unused=True)


@dataclass(frozen=True)
class Estimator:
    """One of `ESTIMATORS`, its loss and its number of draws."""

    name: str
    loss: Loss
    draws: int = 1

    def __post_init__(self) -> None:
        if self.name not in ESTIMATORS:
            raise ValueError(f"estimator must be one of {', '.join(ESTIMATORS)}; got {self.name!r}.")
        if self.draws < 1:
            raise ValueError(f"draws must be at least 1; got {self.draws!r}.")
        if self.draws > 1 and not self.stochastic:
            raise ValueError(f"draws must be 1 for estimator={self.name!r}, which draws nothing; got {self.draws!r}.")

    @property
    def stochastic(self) -> bool:
        """Whether the vectors are random with mean zero."""
        return self.name in STOCHASTIC

    def noise(self, generator: torch.Generator, images: int, outputs: int) -> Float[Tensor, "n draws k"] | None:
        """Uniform numbers in [0, 1) for `images` images, in the order of the images.

        Consecutive calls on one generator give the same numbers however the images are cut into batches.
        """
        if not self.stochastic:
            return None
        return torch.rand(images, self.draws, outputs, generator=generator, dtype=torch.float64)

    def vectors_given(
        self,
        outputs: Float[Tensor, "n *outputs"],
        noise: Float[Tensor, "n draws k"] | None,
        labels: Tensor | None,
    ) -> Vectors:
        """The vectors v for these outputs, each shaped like the outputs; deterministic."""
        z = outputs.detach().double().reshape(len(outputs), -1)

        def shaped(v: Tensor) -> Tensor:
            return v.reshape(outputs.shape).to(outputs.dtype)

        if self.name == "exact":
            return Vectors(self.loss.columns(z.shape[1]), lambda k: shaped(self.loss.column(z, k)))
        if self.name == "empirical":
            assert labels is not None
            by_output = labels.dim() > 1 or labels.is_floating_point()
            v = shaped(self.loss.score(z, labels.reshape(len(labels), -1) if by_output else labels))
            return Vectors(1, lambda _: v)
        assert noise is not None
        given = noise.to(z.device)
        if self.name == "sampled":
            return Vectors(self.draws, lambda k: shaped(self.loss.sampled(z, given[:, k])))
        return Vectors(
            self.draws,
            lambda k: shaped(self.loss.propagated(z, torch.where(given[:, k] < 0.5, -1.0, 1.0).double())),
        )

    def combine(self, values: Float[Tensor, "vectors groups"]) -> Float[Tensor, "draws groups"]:
        """Squared norms of each vector -> one unbiased value of the trace for each draw."""
        return values if self.stochastic else values.sum(0, keepdim=True)
