"""The categorical likelihood: one class drawn from softmax(z) at every position of an image's outputs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from .likelihood import Likelihood, need_labels, signs

# Outputs worked on at once. A float64 copy of 8 x 128 tokens of 50,257 classes is 0.4 GB; of a block it is 0.5 MB on a
# CPU, where it fits the cache (6.4 million outputs in 0.11 s, in blocks of 2**20 0.18 s, of 2**22 0.35 s, one core);
# 32 MB on a GPU, which wants few kernels.
BLOCKS = {"cpu": 2**16}
BLOCK = 2**22


def column_given(z: Tensor, k: int) -> Tensor:
    """Column k of the Cholesky factor of diag(p) - p p^T, p = softmax(z), z [..., classes], in closed form.

    With tails s_k = sum_{i > k} p_i (s_{-1} = 1):  S_kk = sqrt(p_k s_k / s_{k-1}),
    S_ik = -p_i sqrt(p_k / (s_{k-1} s_k)) for i > k, written as -(p_i / s_k) S_kk, which cannot overflow.
    """
    p = torch.softmax(z, -1)
    tail, before = p[..., k + 1 :].sum(-1), p[..., k:].sum(-1)
    diagonal = torch.where(before == 0, 0.0, (p[..., k] * tail / before.clamp_min(1e-300)).sqrt())
    v = torch.zeros_like(p)
    v[..., k] = diagonal
    v[..., k + 1 :] = -p[..., k + 1 :] / tail.clamp_min(1e-300)[..., None] * diagonal[..., None]
    return v


def propagated_given(z: Tensor, eps: Tensor) -> Tensor:
    """sqrt(p) * eps - p (sqrt(p) . eps) (Martens, Sutskever, Swersky 2012, curvature propagation).

    S = diag(sqrt p) - p sqrt(p)^T has S S^T = diag(p) - p p^T. At the likeliest class the two terms nearly cancel
    when p is close to 1; there it is eps sqrt(p) (1 - p) - p (the other classes' part of the product), 1 - p their sum.
    """
    p = torch.softmax(z, -1)
    top = p.argmax(-1, keepdim=True)
    p_top, eps_top = p.gather(-1, top), eps.gather(-1, top)
    root = p.sqrt().mul_(eps)
    rest = root.scatter_(-1, top, 0.0).sum(-1, keepdim=True)
    at_top = p_top.sqrt() * eps_top * p.scatter(-1, top, 0.0).sum(-1, keepdim=True) - p_top * rest
    return root.sub_(p.mul_(rest + p_top.sqrt() * eps_top)).scatter_(-1, top, at_top)


def drawn_given(z: Tensor, uniforms: Tensor) -> Tensor:
    """Classes [...] drawn from softmax(z) by inverting the cumulative distribution at uniform numbers [...]."""
    p = torch.softmax(z, -1)
    # torch has no deterministic cumsum for a GPU, and refuses it where only deterministic algorithms may run
    on_cpu = p.is_cuda and torch.are_deterministic_algorithms_enabled()
    cumulative = p.cpu().cumsum(-1).to(p.device) if on_cpu else p.cumsum(-1)
    y = torch.searchsorted(cumulative, uniforms[..., None] * cumulative[..., -1:], right=True)
    return y.squeeze(-1).clamp_max(z.shape[-1] - 1)


def score_given(z: Tensor, y: Tensor) -> Tensor:
    """p - onehot(y) for classes y [...]; p_y - 1 is minus the sum of the others, which does not cancel."""
    v = torch.softmax(z, -1).scatter_(-1, y[..., None], 0.0)
    return v.scatter_(-1, y[..., None], -v.sum(-1, keepdim=True))


def spread_given(z: Tensor) -> tuple[Tensor, Tensor]:
    """Entropy -sum p log p and 1 - max p, both as sums of positive terms.

    With d = max z - z, and R the sum of exp(-d) over all classes but the likeliest: max p = 1 / (1 + R), and
    the entropy is log(1 + R) + sum exp(-d) d / (1 + R). A logit of minus infinity adds nothing.
    """
    highest, top = z.max(-1, keepdim=True)
    d = (highest - z).clamp_max_(torch.finfo(z.dtype).max)
    weight = d.neg().exp_().scatter_(-1, top, 0.0)
    rest = weight.sum(-1)
    return rest.log1p() + weight.mul_(d).sum(-1) / (1 + rest), rest / (1 + rest)


def as_rows(outputs: Tensor, class_dim: int) -> Tensor:
    """Outputs as [images, positions, classes]; a view wherever the memory allows it."""
    moved = outputs.movedim(class_dim, -1)
    return moved.reshape(len(moved), -1, moved.shape[-1])


def counted(likelihood: Likelihood) -> Float64[Tensor, ""]:
    """How many positions of the batch count; infinite for a likelihood without labels to leave out."""
    if not isinstance(likelihood, CategoricalLikelihood) or likelihood.counts is None:
        return torch.tensor(torch.inf, dtype=torch.float64)
    return likelihood.counts.sum(dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class CategoricalLikelihood:
    """A class at every position, independent given the outputs: H is block-diagonal, diag(p) - p p^T a position.

    log p(y | outputs) is the sum over the image's positions that count, and so is H. All methods go through the
    outputs in blocks: nothing but the result, and the outputs themselves, is as large as the outputs.
    """

    outputs: Float[Tensor, "images *outputs"]  # detached, in the model's own precision
    class_dim: int
    labels: Int64[Tensor, "images positions"] | None = None
    counts: Bool[Tensor, "images positions"] | None = None  # None: every position

    @cached_property
    def used(self) -> list[int]:
        """The positions that count in some image; the first one where there is none, so that there is a column."""
        if self.counts is None:
            return list(range(as_rows(self.outputs, self.class_dim).shape[1]))
        return self.counts.any(0).nonzero().flatten().tolist() or [0]

    @property
    def columns(self) -> int:
        """C - 1, the rank of its block, at each position that counts in some image."""
        return len(self.used) * (self.outputs.shape[self.class_dim] - 1)

    @property
    def noise(self) -> int:
        """One for each output; `sampled` uses the first of them, one for each position."""
        return self.outputs[0].numel()

    def column(self, k: int) -> Tensor:
        """Column k of S: Cholesky column k mod (C - 1) at used position k // (C - 1), zero elsewhere."""
        z = as_rows(self.outputs, self.class_dim)
        index, k = divmod(k, z.shape[2] - 1)
        position = self.used[index]
        v = torch.zeros(self.outputs.shape, dtype=torch.float64, device=z.device)
        at = (slice(None), slice(position, position + 1))
        as_rows(v, self.class_dim)[at] = self._counted(column_given(z[at].double(), k), at)
        return v

    def propagated(self, uniforms: Float64[Tensor, "images noise"]) -> Tensor:
        """sqrt(p) * eps - p (sqrt(p) . eps) at every position."""
        given = as_rows(uniforms.reshape(self.outputs.shape), self.class_dim)
        return self._vector(lambda z, at: propagated_given(z, signs(given[at])))

    def sampled(self, uniforms: Float64[Tensor, "images noise"]) -> Tensor:
        """p - onehot(y), y drawn from p at every position."""
        return self._vector(lambda z, at: score_given(z, drawn_given(z, uniforms[at])))

    def score(self) -> Tensor:
        """p - onehot(label) at every position that counts."""
        labels = need_labels(self.labels)
        if self.counts is not None:
            labels = labels.masked_fill(~self.counts, 0)
        return self._vector(lambda z, at: score_given(z, labels[at]))

    def entropy(self) -> Float64[Tensor, " images"]:
        """-sum p log p, summed over the positions that count."""
        return self._spread[0]

    def rare_draws(self) -> Float64[Tensor, " images"]:
        """1 - max p, summed over the positions that count."""
        return self._spread[1]

    @cached_property
    def _spread(self) -> Float64[Tensor, "2 images"]:
        """Entropy and rare draws, by one pass through the outputs."""
        z = as_rows(self.outputs, self.class_dim)
        total = torch.zeros(2, len(z), dtype=torch.float64, device=z.device)
        for at in self._blocks():
            for row, values in zip(total, spread_given(z[at].double()), strict=True):
                row[at[0]] += self._counted(values, at).sum(1)
        return total

    def _blocks(self) -> Iterator[tuple[slice, slice]]:
        """Slices of images and positions that hold about a block of outputs."""
        images, positions, classes = as_rows(self.outputs, self.class_dim).shape
        block = BLOCKS.get(self.outputs.device.type, BLOCK)
        wide = min(positions, max(1, block // classes))
        high = max(1, block // (classes * wide))
        for i in range(0, images, high):
            for t in range(0, positions, wide):
                yield slice(i, i + high), slice(t, t + wide)

    def _counted(self, values: Tensor, at: tuple[slice, slice]) -> Tensor:
        """Values [images, positions, ...] of a block with zeros where a position does not count."""
        if self.counts is None:
            return values
        left_out = ~self.counts[at]
        return values.masked_fill(left_out[..., None] if values.dim() == 3 else left_out, 0.0)

    def _vector(self, make: Callable[[Tensor, tuple[slice, slice]], Tensor]) -> Tensor:
        z = as_rows(self.outputs, self.class_dim)
        v = torch.empty(self.outputs.shape, dtype=torch.float64, device=z.device)
        rows = as_rows(v, self.class_dim)  # a view, since v is contiguous
        for at in self._blocks():
            rows[at] = self._counted(make(z[at].double(), at), at)
        return v
