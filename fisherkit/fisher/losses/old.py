"""Losses as what a Fisher estimator needs of them: the Hessian H of -log p in the outputs, and its square roots.

Every loss here is the negative log-likelihood of a distribution p(y | outputs), natural logarithm, summed over
the outputs of one image. H does not depend on y, so H = E_y[s s^T] for the score s = d(-log p)/d outputs, and
any random v with E[v v^T] = H gives E ||J^T v||^2 = tr(J^T H J). All functions work in float64 on outputs
flattened to [images, outputs] and lose nothing to cancellation when a network is sure of its answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class Loss(Protocol):
    """What a loss offers; `z` are outputs [images, outputs] in float64."""

    @property
    def name(self) -> str:
        """As a user writes it."""

    def check(self, outputs: Tensor) -> None:
        """Raise ValueError when the model's outputs cannot be this loss's."""

    def columns(self, outputs: int) -> int:
        """Number of columns of the square root of H."""

    def column(self, z: Tensor, k: int) -> Tensor:
        """Column k of a square root S of H, S S^T = H, for every image."""

    def propagated(self, z: Tensor, signs: Tensor) -> Tensor:
        """S eps for random signs eps [images, outputs]."""

    def sampled(self, z: Tensor, uniforms: Tensor) -> Tensor:
        """The score at y drawn from the model, as a function of uniforms in [0, 1)."""

    def score(self, z: Tensor, labels: Tensor) -> Tensor:
        """The score d(-log p(labels | z)) / dz."""

    def entropy(self, z: Tensor) -> Tensor:
        """Entropy of p(y | z) in nats, one value an image."""

    def rare_draws(self, z: Tensor) -> Tensor:
        """Expected number of draws that are not the likeliest outcome, one value an image."""


def _sum_of_others(p: Tensor) -> Tensor:
    """1 - p for probabilities [images, classes], without cancellation where p is close to 1."""
    top = p.argmax(1, keepdim=True)
    others = p.scatter(1, top, 0.0).sum(1, keepdim=True)
    return (1.0 - p).scatter(1, top, others)


@dataclass(frozen=True)
class CrossEntropy:
    """Softmax cross-entropy over one label an image: H = diag(p) - p p^T, outputs [images, classes]."""

    name: str = "cross_entropy"

    def check(self, outputs: Tensor) -> None:
        """Outputs must be [images, classes] with at least two classes."""
        if outputs.dim() != 2 or outputs.shape[1] < 2:
            raise ValueError(
                f"model outputs must be [images, classes] with at least 2 classes for loss='cross_entropy'; "
                f"got shape {list(outputs.shape)}. One output of a yes/no question: loss='binary_cross_entropy'."
            )

    def columns(self, outputs: int) -> int:
        """C - 1: H has rank C - 1."""
        return outputs - 1

    def column(self, z: Tensor, k: int) -> Tensor:
        """Column k of the Cholesky factor of diag(p) - p p^T, in closed form.

        With tails s_k = sum_{i > k} p_i (s_{-1} = 1):  S_kk = sqrt(p_k s_k / s_{k-1}),
        S_ik = -p_i sqrt(p_k / (s_{k-1} s_k)) for i > k, written as -(p_i / s_k) S_kk, which cannot overflow.
        """
        p = torch.softmax(z, 1)
        tail, before = p[:, k + 1 :].sum(1), p[:, k:].sum(1)
        diagonal = torch.where(before > 0, (p[:, k] * tail / before.clamp_min(1e-300)).sqrt(), 0.0)
        v = torch.zeros_like(p)
        v[:, k] = diagonal
        share = p[:, k + 1 :] / tail.clamp_min(1e-300)[:, None]
        v[:, k + 1 :] = -share * diagonal[:, None]
        return v

    def propagated(self, z: Tensor, signs: Tensor) -> Tensor:
        """sqrt(p) * eps - p (sqrt(p) . eps) (Martens, Sutskever, Swersky 2012, curvature propagation).

        S = diag(sqrt p) - p sqrt(p)^T has S S^T = diag(p) - p p^T. The term eps_k sqrt(p_k) (1 - p_k) is
        taken apart from the rest so that p close to 1 does not cancel.
        """
        p = torch.softmax(z, 1)
        root = p.sqrt() * signs
        top = p.argmax(1, keepdim=True)
        rest = root.scatter(1, top, 0.0).sum(1, keepdim=True)
        others = (rest + root.gather(1, top) - root).scatter(1, top, rest)
        return root * _sum_of_others(p) - p * others

    def sampled(self, z: Tensor, uniforms: Tensor) -> Tensor:
        """p - onehot(y), y by inversion of the cumulative distribution at uniforms[:, 0]."""
        cumulative = torch.softmax(z, 1).cumsum(1)
        y = torch.searchsorted(cumulative, uniforms[:, :1] * cumulative[:, -1:], right=True)
        return self.score(z, y.squeeze(1).clamp_max(z.shape[1] - 1))

    def score(self, z: Tensor, labels: Tensor) -> Tensor:
        """p - onehot(label)."""
        _check_labels(labels, (len(z),), "one class index an image")
        classes = z.shape[1]
        if int(labels.min()) < 0 or int(labels.max()) >= classes:
            raise ValueError(
                f"labels must be class indices from 0 to {classes - 1}; got {int(labels.min())} to "
                f"{int(labels.max())}. Check that the model has one output for each class."
            )
        p = torch.softmax(z, 1)
        return p.scatter(1, labels[:, None], -_sum_of_others(p).gather(1, labels[:, None]))

    def entropy(self, z: Tensor) -> Tensor:
        """-sum p log p."""
        log_p = torch.log_softmax(z, 1)
        return -(log_p.exp() * log_p).sum(1)

    def rare_draws(self, z: Tensor) -> Tensor:
        """1 - max p."""
        p = torch.softmax(z, 1)
        return _sum_of_others(p).gather(1, p.argmax(1, keepdim=True)).squeeze(1)


class _IndependentOutputs:
    """What losses with a diagonal H share."""

    def check(self, outputs: Tensor) -> None:
        """Any shape [images, ...] will do."""
        if outputs.dim() < 1 or outputs.numel() == 0:
            raise ValueError(f"model outputs must be [images, ...]; got shape {list(outputs.shape)}.")

    def columns(self, outputs: int) -> int:
        """One for each output."""
        return outputs


@dataclass(frozen=True)
class BinaryCrossEntropy(_IndependentOutputs):
    """Independent yes/no outputs with logits z: H = diag(p (1 - p)), p = sigmoid(z)."""

    name: str = "binary_cross_entropy"

    def column(self, z: Tensor, k: int) -> Tensor:
        """sqrt(p_k (1 - p_k)) e_k."""
        v = torch.zeros_like(z)
        v[:, k] = (z[:, k].sigmoid() * (-z[:, k]).sigmoid()).sqrt()
        return v

    def propagated(self, z: Tensor, signs: Tensor) -> Tensor:
        """sqrt(p (1 - p)) eps."""
        return (z.sigmoid() * (-z).sigmoid()).sqrt() * signs

    def sampled(self, z: Tensor, uniforms: Tensor) -> Tensor:
        """p - y with y = 1 where the uniform is below p."""
        return torch.where(uniforms < z.sigmoid(), -(-z).sigmoid(), z.sigmoid())

    def score(self, z: Tensor, labels: Tensor) -> Tensor:
        """p - label, labels in [0, 1]."""
        _check_labels(labels, tuple(z.shape), "one value in [0, 1] for each output")
        return z.sigmoid() - labels.to(z.dtype)

    def entropy(self, z: Tensor) -> Tensor:
        """Sum of the outputs' entropies: softplus(z) - z p."""
        return (torch.nn.functional.softplus(z) - z * z.sigmoid()).sum(1)

    def rare_draws(self, z: Tensor) -> Tensor:
        """Sum over outputs of min(p, 1 - p)."""
        return (-z.abs()).sigmoid().sum(1)


@dataclass(frozen=True)
class SquaredError(_IndependentOutputs):
    """Half the squared error, the -log p of a unit-variance Gaussian around the outputs: H = identity."""

    name: str = "squared_error"

    def column(self, z: Tensor, k: int) -> Tensor:
        """e_k."""
        v = torch.zeros_like(z)
        v[:, k] = 1.0
        return v

    def propagated(self, z: Tensor, signs: Tensor) -> Tensor:
        """eps."""
        return signs

    def sampled(self, z: Tensor, uniforms: Tensor) -> Tensor:
        """z - y for y = z + a standard normal number, by inversion at the uniforms."""
        tiny = torch.finfo(torch.float64).tiny
        normal: Tensor = torch.special.ndtri(uniforms.clamp_min(tiny))
        return -normal

    def score(self, z: Tensor, labels: Tensor) -> Tensor:
        """z - label."""
        _check_labels(labels, tuple(z.shape), "one target for each output")
        return z - labels.to(z.dtype)

    def entropy(self, z: Tensor) -> Tensor:
        """The Gaussian's own, whatever the outputs."""
        constant = 0.5 * torch.log(torch.tensor(2 * torch.pi * torch.e, dtype=z.dtype, device=z.device))
        return constant * z.shape[1] * torch.ones_like(z[:, 0])

    def rare_draws(self, z: Tensor) -> Tensor:
        """A continuous outcome has no rare labels to miss."""
        return torch.full_like(z[:, 0], torch.inf)


LOSSES: Sequence[Loss] = (CrossEntropy(), BinaryCrossEntropy(), SquaredError())


def find_loss(name: str) -> Loss:
    """The loss of that name.

    Raises:
        ValueError: there is none; the message lists them.
    """
    for loss in LOSSES:
        if loss.name == name:
            return loss
    raise ValueError(f"loss must be one of {', '.join(loss.name for loss in LOSSES)}; got {name!r}.")


def _check_labels(labels: Tensor, shape: tuple[int, ...], rule: str) -> None:
    if tuple(labels.shape) != shape:
        raise ValueError(f"labels must be {rule}, shape {list(shape)}; got shape {list(labels.shape)}.")
