"""Families of torch.distributions whose Fisher information in their own parameters phi is known, with its root.

    family                          phi           Fisher information in phi
    Categorical, OneHotCategorical  logits        diag(p) - p p^T
    Bernoulli                       logits        p (1 - p)
    Geometric                       logits        1 - p
    Normal                          loc, scale    1 / scale^2, 2 / scale^2
    Laplace                         loc, scale    1 / scale^2, 1 / scale^2
    Poisson                         rate          1 / rate
    Exponential                     rate          1 / rate^2

Location and scale are orthogonal in both families, elements of a batch are independent: all but the first are diagonal.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch import distributions as D
from torch.distributions import Distribution

from .independent import BernoulliLikelihood
from .likelihood import Root, signs
from .softmax import CategoricalLikelihood


@dataclass(frozen=True, eq=False)
class Diagonal:
    """The square root diag(root)."""

    root: Float[Tensor, "images *elements"]

    @property
    def columns(self) -> int:
        """One for each element."""
        return self.root[0].numel()

    @property
    def noise(self) -> int:
        """One for each element."""
        return self.root[0].numel()

    def column(self, k: int) -> Tensor:
        """root_k e_k."""
        v = torch.zeros_like(self.root, memory_format=torch.contiguous_format)
        v.view(len(v), -1)[:, k] = self.root.reshape(len(v), -1)[:, k]
        return v

    def propagated(self, uniforms: Float64[Tensor, "images noise"]) -> Tensor:
        """root * eps."""
        return self.root * signs(uniforms).reshape(self.root.shape)


@dataclass(frozen=True, eq=False)
class Parameter:
    """A parameter phi of a family, in the graph of the outputs, and the root of the Fisher information in it."""

    phi: Tensor
    root: Root


def _categorical(d: Any) -> list[Parameter]:
    return [Parameter(d.logits, CategoricalLikelihood(d.logits.detach(), -1))]


def _bernoulli(d: Any) -> list[Parameter]:
    return [Parameter(d.logits, BernoulliLikelihood(d.logits.detach()))]


def _geometric(d: Any) -> list[Parameter]:
    return [_diagonal(d.logits, (-d.logits).sigmoid().sqrt())]


def _normal(d: Any) -> list[Parameter]:
    return [_diagonal(d.loc, 1 / d.scale), _diagonal(d.scale, 2**0.5 / d.scale)]


def _laplace(d: Any) -> list[Parameter]:
    return [_diagonal(d.loc, 1 / d.scale), _diagonal(d.scale, 1 / d.scale)]


def _poisson(d: Any) -> list[Parameter]:
    # a rate exp(z) that underflows to 0 has a Fisher of 0 in z, the limit: 0 * infinity would be NaN
    return [_diagonal(d.rate, torch.where(d.rate == 0, 0.0, d.rate.rsqrt()))]


def _exponential(d: Any) -> list[Parameter]:
    return [_diagonal(d.rate, 1 / d.rate)]


def _diagonal(phi: Tensor, root: Tensor) -> Parameter:
    return Parameter(phi, Diagonal(root.detach().double()))


FAMILIES: dict[type[Distribution], Callable[[Any], list[Parameter]]] = {
    D.Categorical: _categorical,
    D.OneHotCategorical: _categorical,
    D.Bernoulli: _bernoulli,
    D.Geometric: _geometric,
    D.Normal: _normal,
    D.Laplace: _laplace,
    D.Poisson: _poisson,
    D.Exponential: _exponential,
}


def unwrapped(distribution: Distribution) -> Distribution:
    """The distribution inside any `Independent`, which only calls batch dimensions event dimensions."""
    while type(distribution) is D.Independent:
        distribution = distribution.base_dist
    return distribution


def parameters_of(distribution: Distribution) -> list[Parameter] | None:
    """The parameters that depend on the outputs, or None for a family that is not in `FAMILIES`.

    Subclasses are another family: their log_prob may be anything.
    """
    base = unwrapped(distribution)
    family = FAMILIES.get(type(base))
    return None if family is None else [p for p in family(base) if p.phi.requires_grad]
