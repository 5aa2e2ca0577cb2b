"""Losses whose outputs are independent of each other given the network: binary cross-entropy, squared error."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from .likelihood import need_labels, signs


@dataclass(frozen=True, eq=False)
class _Independent:
    """What likelihoods with a diagonal H share: S = diag(root)."""

    outputs: Float[Tensor, "images *outputs"]
    labels: Tensor | None = None

    @property
    def columns(self) -> int:
        """One for each output."""
        return self.outputs[0].numel()

    @property
    def noise(self) -> int:
        """One for each output."""
        return self.outputs[0].numel()

    def column(self, k: int) -> Tensor:
        """root_k e_k."""
        v = torch.zeros(self.outputs.shape, dtype=torch.float64, device=self.outputs.device)
        one = self.outputs.reshape(len(v), -1)[:, k].double()
        v.view(len(v), -1)[:, k] = self.root(one)
        return v

    def propagated(self, uniforms: Float64[Tensor, "images noise"]) -> Tensor:
        """root * eps."""
        return self.root(self.outputs.double()) * signs(uniforms).reshape(self.outputs.shape)

    def root(self, z: Tensor) -> Tensor:
        """Square root of the diagonal of H at outputs z, one by one."""
        raise NotImplementedError

    def _targets(self, rule: str) -> Tensor:
        """Labels in float64, shaped like the outputs; one output an image may have its labels as [images]."""
        labels, shape = need_labels(self.labels), self.outputs.shape
        one_each = labels.numel() == len(self.outputs) == self.outputs.numel()
        if labels.shape != shape and not one_each:
            raise ValueError(f"labels must be {rule}, shape {list(shape)}; got shape {list(labels.shape)}.")
        return labels.to(self.outputs.device).double().reshape(shape)


@dataclass(frozen=True, eq=False)
class BernoulliLikelihood(_Independent):
    """Independent yes/no outputs with logits z: H = diag(p (1 - p)), p = sigmoid(z)."""

    def root(self, z: Tensor) -> Tensor:
        """sqrt(p (1 - p))."""
        return (z.sigmoid() * (-z).sigmoid()).sqrt()

    def sampled(self, uniforms: Float64[Tensor, "images noise"]) -> Tensor:
        """p - y with y = 1 where the uniform number is below p."""
        z = self.outputs.double()
        p = z.sigmoid()
        return torch.where(uniforms.reshape(z.shape) < p, -(-z).sigmoid(), p)

    def score(self) -> Tensor:
        """p - label, labels in [0, 1]; written so that neither p close to 1 nor p close to 0 cancels."""
        rule = "one value in [0, 1] for each output"
        y, z = self._targets(rule), self.outputs.double()
        if not bool(((y >= 0) & (y <= 1)).all()):
            raise ValueError(f"labels must be {rule}; got {float(y.min()):g} to {float(y.max()):g}.")
        return (1 - y) * z.sigmoid() - y * (-z).sigmoid()

    def entropy(self) -> Float64[Tensor, " images"]:
        """Sum of the outputs' entropies: softplus(-|z|) + |z| q with q = sigmoid(-|z|), the rarer answer's share."""
        far = self.outputs.double().abs().clamp_max(1e4).reshape(len(self.outputs), -1)  # 0 from 750 on; not inf * 0
        return (torch.nn.functional.softplus(-far) + far * (-far).sigmoid()).sum(1)

    def rare_draws(self) -> Float64[Tensor, " images"]:
        """Sum over outputs of min(p, 1 - p)."""
        return (-self.outputs.double().abs()).sigmoid().reshape(len(self.outputs), -1).sum(1)


@dataclass(frozen=True, eq=False)
class GaussianLikelihood(_Independent):
    """A Gaussian of variance 1 around every output: -log p is half the squared error, H the identity."""

    def root(self, z: Tensor) -> Tensor:
        """1."""
        return torch.ones_like(z)

    def sampled(self, uniforms: Float64[Tensor, "images noise"]) -> Tensor:
        """z - y for y = z + a standard normal number, by inversion at the uniform numbers."""
        normal: Tensor = torch.special.ndtri(uniforms.clamp_min(torch.finfo(torch.float64).tiny))
        return -normal.reshape(self.outputs.shape)

    def score(self) -> Tensor:
        """z - label."""
        return self.outputs.double() - self._targets("one target for each output")

    def entropy(self) -> Float64[Tensor, " images"]:
        """log(2 pi e) / 2 for each output, whatever its value."""
        one = 0.5 * torch.log(torch.tensor(2 * torch.pi * torch.e, dtype=torch.float64))
        return (one * self.columns).to(self.outputs.device).repeat(len(self.outputs))

    def rare_draws(self) -> Float64[Tensor, " images"]:
        """A continuous outcome has no rare labels to miss."""
        return torch.full((len(self.outputs),), torch.inf, dtype=torch.float64, device=self.outputs.device)


def check_any_shape(outputs: Tensor) -> None:
    """Any shape [images, ...] will do.

    Raises:
        ValueError: there is no image or no output.
    """
    if outputs.dim() < 1 or outputs.numel() == 0:
        raise ValueError(f"model outputs must be [images, ...]; got shape {list(outputs.shape)}.")


@dataclass(frozen=True)
class BinaryCrossEntropy:
    """Independent yes/no outputs, logits of any shape [images, ...]; log p of an image is the sum over its outputs."""

    name: str = "binary_cross_entropy"

    def check(self, outputs: Tensor) -> None:
        """Any shape [images, ...] will do."""
        check_any_shape(outputs)

    def likelihood(self, outputs: Tensor, labels: Tensor | None) -> BernoulliLikelihood:
        """Yes or no at every output."""
        return BernoulliLikelihood(outputs.detach(), labels)


@dataclass(frozen=True)
class SquaredError:
    """Half the squared error, summed over an image's outputs: the -log p of unit-variance Gaussians around them."""

    name: str = "squared_error"

    def check(self, outputs: Tensor) -> None:
        """Any shape [images, ...] will do."""
        check_any_shape(outputs)

    def likelihood(self, outputs: Tensor, labels: Tensor | None) -> GaussianLikelihood:
        """A Gaussian around every output."""
        return GaussianLikelihood(outputs.detach(), labels)
