"""Estimators: which vectors v are sent back from the outputs, with E[v v^T] = H.

    estimator     v                                          passes          combined by
    exact         the columns of a square root of H          its columns     sum
    sampled       the score at labels drawn from the model   draws           mean
    propagated    S eps, eps random signs, S S^T = H         draws           mean
    empirical     the score at the given labels              1               mean

Drawing is kept apart from computing: `noise.py` draws, `Estimator.vectors` is a pure function of what was drawn.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import torch
from jaxtyping import Float64
from torch import Tensor

from .losses import Likelihood

ESTIMATORS = ("exact", "sampled", "propagated", "empirical")
STOCHASTIC = ("sampled", "propagated")  # their vectors have mean zero given the image: `batch` is valid


class Vectors(Sequence[Tensor]):
    """A sequence of vectors [images, ...] made one at a time, so that 1,000 columns never lie in memory.

    `mean_zero` of them, the first ones, are random with mean zero given the image.
    """

    def __init__(self, count: int, make: Callable[[int], Tensor], *, mean_zero: int = 0) -> None:
        self._count, self._make = count, make
        self.mean_zero = mean_zero

    @classmethod
    def chained(cls, parts: Sequence["Vectors"]) -> "Vectors":
        """The vectors of several estimators after one another; those with mean zero must come first."""
        where = [(part, k) for part in parts for k in range(len(part))]
        mean_zero = sum(part.mean_zero for part in parts)
        assert all(k < part.mean_zero for part, k in where[:mean_zero])
        return cls(len(where), lambda k: where[k][0][where[k][1]], mean_zero=mean_zero)

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
    outputs: Tensor, wanted: Sequence[Tensor], vectors: Vectors, *, joint: Sequence[Tensor] = ()
) -> Iterator[tuple[Tensor | None, ...]]:
    """J^T v for each vector v, one backward pass each through the one graph; None where there is no path.

    In `wanted` for every vector; then in `joint` for those with mean zero.
    """
    for k, v in enumerate(vectors):
        last = k + 1 == len(vectors)
        into = [*wanted, *joint] if k < vectors.mean_zero else wanted
        yield torch.autograd.grad(outputs, into, v, retain_graph=not last, allow_unused=True)


@dataclass(frozen=True)
class Estimator:
    """One of `ESTIMATORS` and its number of draws."""

    name: str
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

    def vectors(
        self, likelihood: Likelihood, uniforms: Callable[[int], Float64[Tensor, "images noise"]], like: Tensor
    ) -> Vectors:
        """The vectors v for one batch, each shaped and typed like the outputs; deterministic.

        Args:
            likelihood: p(y | outputs) of the batch.
            uniforms: for each draw, `likelihood.noise` numbers in [0, 1) an image; asked of by those that draw.
            like: the outputs.
        """

        def cast(v: Tensor) -> Tensor:
            return v.to(like.dtype)

        if self.name == "exact":
            return Vectors(likelihood.columns, lambda k: cast(likelihood.column(k)))
        if self.name == "empirical":
            return Vectors(1, lambda _: cast(likelihood.score()))
        draw = likelihood.sampled if self.name == "sampled" else likelihood.propagated
        return Vectors(self.draws, lambda k: cast(draw(uniforms(k))), mean_zero=self.draws)

    def combine(self, values: Float64[Tensor, "vectors groups"]) -> Float64[Tensor, "draws groups"]:
        """Squared norms of each vector -> one unbiased value of the trace for each draw."""
        return values if self.stochastic else values.sum(0, keepdim=True)
