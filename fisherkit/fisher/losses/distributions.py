"""The likelihood of any torch.distributions.Distribution that a callable makes of the outputs."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor
from torch.distributions import Distribution

from .families import FAMILIES, Parameter, parameters_of, unwrapped
from .likelihood import need_labels


@contextmanager
def checked_outcomes() -> Iterator[None]:
    """Distributions check parameters and outcomes, which torch.compile switches off for the whole process."""
    before = Distribution._validate_args
    Distribution.set_default_validate_args(True)
    try:
        yield
    finally:
        Distribution.set_default_validate_args(before)


@dataclass(frozen=True, eq=False)
class DistributionLikelihood:
    """p(y | outputs) given as a distribution whose first batch dimension runs over images.

    log p of an image is the sum over its other batch dimensions. With phi the family's own parameters,
    H = (d phi / d z)^T F_phi (d phi / d z), so a root of H is the vector-Jacobian product of a root of F_phi, for
    the families whose F_phi is known. Other families offer `sampled` and `score`, which need log_prob alone.
    """

    function: Callable[[Tensor], Any]
    z: Float64[Tensor, "images *outputs"]  # the leaf that `distribution` is a function of
    distribution: Distribution
    labels: Tensor | None = None

    @cached_property
    def parameters(self) -> list[Parameter] | None:
        """Those of the family with their roots, or None where its Fisher information is not known."""
        with torch.enable_grad():
            return parameters_of(self.distribution)

    @property
    def columns(self) -> int:
        """Those of the root of F_phi; 1 for other families, so that asking for it is refused."""
        return 1 if self.parameters is None else sum(p.root.columns for p in self.parameters)

    @property
    def noise(self) -> int:
        """A sign for each parameter; at least 1, the seed of `sampled`."""
        return max(1, sum(p.root.noise for p in self.parameters or ()))

    def column(self, k: int) -> Tensor:
        """(d phi / d z)^T times column k of the root of F_phi."""
        for parameter in self._known("exact"):
            if k < parameter.root.columns:
                return self._pulled_back([parameter.phi], [parameter.root.column(k)])
            k -= parameter.root.columns
        raise IndexError(k)

    def propagated(self, uniforms: Float64[Tensor, "images noise"]) -> Tensor:
        """(d phi / d z)^T times the root of F_phi times random signs."""
        known = self._known("propagated")
        parts = uniforms[:, : sum(p.root.noise for p in known)].split([p.root.noise for p in known], 1)
        vectors = [p.root.propagated(part.contiguous()) for p, part in zip(known, parts, strict=True)]
        return self._pulled_back([p.phi for p in known], vectors)

    def sampled(self, uniforms: Float64[Tensor, "images noise"]) -> Tensor:
        """The score at y from the distribution's own `sample`, seeded for each image by its first uniform number."""
        return self._score_at(drawn(self.function, self.z.detach(), uniforms[:, 0]))

    def score(self) -> Tensor:
        """-d log_prob(labels) / dz."""
        labels, d = need_labels(self.labels), self.distribution
        shape = d.batch_shape + d.event_shape
        if labels.shape != shape:
            raise ValueError(
                f"labels must be one outcome of {type(d).__name__} for each image, shape {list(shape)}; "
                f"got shape {list(labels.shape)}."
            )
        try:
            with checked_outcomes():
                return self._score_at(labels.to(self.z.device).double())
        except ValueError as error:
            raise ValueError(f"labels must be possible outcomes of {type(d).__name__}. {error}") from error

    def entropy(self) -> Float64[Tensor, " images"]:
        """That of torch.distributions (differential for a continuous family); NaN where it has none."""
        try:
            with torch.enable_grad():  # exponential families take a gradient for it
                return self._sum(unwrapped(self.distribution).entropy())
        except NotImplementedError:
            return self._filled(torch.nan)

    def rare_draws(self) -> Float64[Tensor, " images"]:
        """1 - p(mode), summed; infinite for a continuous family, NaN where the mode is not known."""
        base = unwrapped(self.distribution)
        try:
            if not base.support.is_discrete:  # type: ignore[union-attr]
                return self._filled(torch.inf)
            mode = base.mode.nan_to_num(0.0)  # Bernoulli(0.5) has two modes and says NaN
            return self._sum(1 - base.log_prob(mode).exp())
        except NotImplementedError:
            return self._filled(torch.nan)

    def _known(self, estimator: str) -> list[Parameter]:
        if self.parameters is None:
            family = type(unwrapped(self.distribution)).__name__
            raise ValueError(
                f"estimator must be 'sampled' or 'empirical' for the distribution {family}; got {estimator!r}, which "
                f"needs its Fisher information in closed form, known for "
                f"{', '.join(known.__name__ for known in FAMILIES)}. Use estimator='sampled', or a loss that returns "
                "a square root S of the Fisher in the outputs."
            )
        return self.parameters

    def _pulled_back(self, phi: Sequence[Tensor], vectors: Sequence[Tensor]) -> Tensor:
        given = [v.to(p.dtype) for v, p in zip(vectors, phi, strict=True)]
        (v,) = torch.autograd.grad(phi, self.z, given, retain_graph=True, allow_unused=True)
        return torch.zeros_like(self.z) if v is None else v

    def _score_at(self, y: Tensor) -> Tensor:
        with torch.enable_grad():
            log_p = self.distribution.log_prob(y).double().sum()
        (gradient,) = torch.autograd.grad(log_p, self.z, retain_graph=True)
        return -gradient

    def _sum(self, values: Tensor) -> Float64[Tensor, " images"]:
        return values.detach().double().reshape(len(self.z), -1).sum(1)

    def _filled(self, value: float) -> Float64[Tensor, " images"]:
        return torch.full((len(self.z),), value, dtype=torch.float64, device=self.z.device)


def drawn(function: Callable[[Tensor], Any], z: Tensor, uniforms: Float64[Tensor, " images"]) -> Tensor:
    """One outcome for each image, by the `sample` of its own distribution seeded by its own uniform number.

    Built one image at a time, so that the same number gives the same outcome however images are cut into batches.
    The global random states are as before.
    """
    outcomes = []
    with torch.no_grad(), _set_aside(z.device) as reseed:
        for i, seed in enumerate(map(seed_of, uniforms.tolist())):
            reseed(seed)
            outcomes.append(function(z[i : i + 1]).sample())
    return torch.cat(outcomes)


def seed_of(uniform: float) -> int:
    """A seed from the 53 bits of a uniform number.

    torch's CPU generator uses the low 32 bits of a seed, which are all zero in numbers drawn with 21 bits or fewer:
    a multiplication by an odd constant and a shift (Fibonacci hashing) bring every bit down.
    """
    mixed = int(uniform * 2**53) * 0x9E3779B97F4A7C15 % 2**64
    return mixed ^ (mixed >> 32)


@contextmanager
def _set_aside(device: torch.device) -> Iterator[Callable[[int], None]]:
    """A function that seeds the generators of the CPU and of the device; on leaving they are as they were."""
    on_gpu = device.type == "cuda"

    def reseed(seed: int) -> None:
        torch.default_generator.manual_seed(seed)
        if on_gpu:
            torch.cuda.default_generators[device.index].manual_seed(seed)

    with torch.random.fork_rng(devices=[device] if on_gpu else []):
        yield reseed
