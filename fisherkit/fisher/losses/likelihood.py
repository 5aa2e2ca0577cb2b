"""What a loss gives to an estimator: a likelihood p(y | outputs), its score, and square roots of its Fisher.

Every loss here is the negative log-likelihood of a distribution p(y | outputs), natural logarithm, summed over the
outputs of one image. With the score s = d(-log p(y | z)) / dz in one image's outputs z,

    H = E_{y ~ p(.|z)} [s s^T]   (the Hessian of -log p in z, where that does not depend on y),

and any random v with E[v v^T] = H gives E || J^T v ||^2 = tr(J^T H J), the image's part of the true Fisher trace.
All numbers are float64 inside and lose nothing to cancellation when a network is sure of its answer.
"""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float64
from torch import Tensor


@runtime_checkable
class Root(Protocol):
    """A square root S of a Fisher information, S S^T = H, in the outputs or in a parameter of p [images, ...].

    Every vector is float64 and shaped like what it is in.
    """

    @property
    def columns(self) -> int:
        """Number of columns of S."""

    @property
    def noise(self) -> int:
        """How many uniform numbers in [0, 1) a random vector consumes, for each image and draw."""

    def column(self, k: int) -> Tensor:
        """Column k of S, for every image."""

    def propagated(self, uniforms: Float64[Tensor, "images noise"]) -> Tensor:
        """S eps, eps the random signs that the uniform numbers stand for: -1 below 0.5, else 1."""


@runtime_checkable
class Likelihood(Root, Protocol):
    """p(y | outputs) for the outputs of one batch, and its labels where there are any; its root is in the outputs."""

    def sampled(self, uniforms: Float64[Tensor, "images noise"]) -> Tensor:
        """The score at y drawn from p(. | outputs), as a function of the uniform numbers."""

    def score(self) -> Tensor:
        """The score at the labels; ValueError where there are none or they cannot be outcomes."""

    def entropy(self) -> Float64[Tensor, " images"]:
        """Entropy of p(y | outputs) in nats, summed over an image's outputs that count; NaN where it is unknown."""

    def rare_draws(self) -> Float64[Tensor, " images"]:
        """Expected number of draws that are not the likeliest outcome; infinite where every outcome is one of many."""


@runtime_checkable
class Loss(Protocol):
    """A family of likelihoods, as given by `loss=`."""

    @property
    def name(self) -> str:
        """As a user writes it; recorded with the numbers."""

    def check(self, outputs: Tensor) -> None:
        """Raise ValueError when the model's outputs [images, ...] cannot be this loss's."""

    def likelihood(self, outputs: Tensor, labels: Tensor | None) -> Likelihood:
        """p(y | outputs) for outputs that passed `check`; raises ValueError when the labels do not fit."""


def signs(uniforms: Tensor) -> Tensor:
    """Random signs in float64: -1 where the uniform number is below 0.5, else 1."""
    return torch.ones((), dtype=torch.float64, device=uniforms.device).copysign(uniforms - 0.5)


def need_labels(labels: Tensor | None) -> Tensor:
    """The labels.

    Raises:
        ValueError: there are none.
    """
    if labels is None:
        raise ValueError(
            "labels must be given for estimator='empirical', which takes the score at them; got None. "
            "Give labels, or use estimator='propagated', which needs none."
        )
    return labels
