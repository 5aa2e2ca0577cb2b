"""Any callable of the outputs as a loss: it returns a distribution, or a square root of the Fisher."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from .distributions import DistributionLikelihood, checked_outcomes, drawn
from .independent import check_any_shape
from .likelihood import Likelihood
from .square_root import SquareRootLikelihood, square_root_likelihood

SAME = 1e-4  # relative; a callable may work in float32 inside


@dataclass(frozen=True)
class CallableLoss:
    """`function(outputs)` for float64 outputs [images, ...], each image's result from its own outputs alone.

        it returns                                       meaning
        torch.distributions.Distribution                 p(y | outputs), first batch dimension: images
        tensor [images, outputs (flattened), columns]    S with S S^T = H, the Fisher in the outputs

    For example `lambda z: Normal(z[:, 0], z[:, 1].exp())`, `lambda z: Poisson(z.exp())`.
    """

    function: Callable[[Tensor], Any]

    @property
    def name(self) -> str:
        """The function's own name."""
        return str(getattr(self.function, "__name__", type(self.function).__name__))

    def check(self, outputs: Tensor) -> None:
        """Call it on the outputs, and on the first and the last image alone: the results must fit and agree."""
        check_any_shape(outputs)
        whole = self.likelihood(outputs, None)
        for i in {0, len(outputs) - 1}:
            alone = self.likelihood(outputs[i : i + 1], None)
            if isinstance(whole, DistributionLikelihood) and isinstance(alone, DistributionLikelihood):
                same = _same_distribution(whole, alone, i)
            else:
                assert isinstance(whole, SquareRootLikelihood)
                assert isinstance(alone, SquareRootLikelihood)
                same = whole.root.shape[1:] == alone.root.shape[1:] and _close(whole.root[i : i + 1], alone.root)
            if not same:
                raise ValueError(
                    "loss must give each image's result from its own outputs alone; it gave another one for an image "
                    "when the other images were left out. Do not sum, average or normalise over the first dimension."
                )
        if isinstance(whole, DistributionLikelihood):
            _check_dependence(whole)

    def likelihood(self, outputs: Tensor, labels: Tensor | None) -> Likelihood:
        """What the callable returns for these outputs.

        Raises:
            ValueError: calling it failed, or it returned something else.
        """
        z = outputs.detach().double().clone().requires_grad_()
        try:
            with torch.enable_grad(), checked_outcomes():
                made = self.function(z)
        except Exception as error:
            raise ValueError(
                f"loss must be a name, or a callable of the outputs alone that returns a "
                f"torch.distributions.Distribution or a tensor; calling {self.name} on float64 outputs of shape "
                f"{list(z.shape)} raised {type(error).__name__}: {error}"
            ) from error
        if isinstance(made, Tensor):
            return square_root_likelihood(outputs, made)
        if not isinstance(made, Distribution):
            raise ValueError(
                f"loss must return a torch.distributions.Distribution or a tensor when called on the outputs; "
                f"{self.name} returned {type(made).__name__}."
            )
        if made.batch_shape[:1] != z.shape[:1]:
            raise ValueError(
                f"loss must return a distribution whose first batch dimension runs over the {len(z)} images; "
                f"{self.name} returned {made}, batch_shape {list(made.batch_shape)}. Independent(..., n) must leave it."
            )
        return DistributionLikelihood(self.function, z, made, labels)


def _same_distribution(whole: DistributionLikelihood, alone: DistributionLikelihood, image: int) -> bool:
    """Whether both give one image's outcome the same probability."""
    d, one = whole.distribution, alone.distribution
    if d.batch_shape[1:] != one.batch_shape[1:] or d.event_shape != one.event_shape:
        return False
    y = _outcomes(whole)
    return _close(d.log_prob(y)[image : image + 1], one.log_prob(y[image : image + 1]))


def _check_dependence(whole: DistributionLikelihood) -> None:
    with torch.enable_grad():
        log_p = whole.distribution.log_prob(_outcomes(whole)).sum()
    gradient = None
    if log_p.requires_grad:
        (gradient,) = torch.autograd.grad(log_p, whole.z, retain_graph=True, allow_unused=True)
    if gradient is None:
        raise ValueError(
            "loss must give a distribution that depends on the outputs; log_prob has no gradient in them. "
            "Do not detach them or leave torch."
        )


def _outcomes(whole: DistributionLikelihood) -> Tensor:
    return drawn(whole.function, whole.z.detach(), torch.full((len(whole.z),), 0.5, dtype=torch.float64))


def _close(a: Tensor, b: Tensor) -> bool:
    scale = 1 + a.detach().abs().max()
    return bool((a.detach() - b.detach()).abs().max() <= SAME * scale)
