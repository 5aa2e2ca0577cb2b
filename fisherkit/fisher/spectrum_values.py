"""What the Gram matrix of a layer's score vectors says: eigenvalues, trace, effective rank and its error."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

Values = Float64[np.ndarray, " _"]
NAN = math.nan


@dataclass(frozen=True)
class Rank:
    """An effective rank over the distribution of the images, with its standard error; NaN where it cannot be told."""

    value: float
    stderr: float


@dataclass(frozen=True, eq=False)
class LayerSpectrum:
    """One layer's share of a `FisherSpectrum`; the fields are explained there."""

    vectors: int
    eigenvalues: np.ndarray
    trace: float
    effective_rank: float
    corrected: Rank


def layer_spectrum(
    lower: Float64[Tensor, "vectors vectors"],
    image: Int64[Tensor, " vectors"],
    *,
    moment: Float64[Tensor, "numbers numbers"] | None = None,
    k: int,
    weight: float,
) -> LayerSpectrum:
    """From G G^T (lower triangle) and, where it is smaller, G^T G; F = weight G^T G. `image`: whose each vector is."""
    norms, overlaps = by_image(lower, image)
    trace = float(norms.sum())
    side = lower if moment is None else moment
    values = leading_eigenvalues(side, k) * weight
    if trace == 0:
        return LayerSpectrum(len(lower), values, 0.0, 0.0, Rank(NAN, NAN))
    rank = trace**2 / float(overlaps.sum()) if trace**2 > 0 else NAN
    return LayerSpectrum(len(lower), values, trace * weight, rank, corrected_rank(norms / trace, overlaps / trace**2))


def leading_eigenvalues(lower: Float64[Tensor, "m m"], k: int) -> np.ndarray:
    """The k largest eigenvalues, descending, of a positive semidefinite matrix given by its lower triangle.

    Zero past its rank: below m * eps * the largest there is nothing but rounding. By torch, not scipy, so that the
    number of threads that a run records is the number that was used.
    """
    values = torch.linalg.eigvalsh(lower).flip(0)[:k].cpu().numpy()
    floor = len(lower) * np.finfo(np.float64).eps * max(float(values[0]), 0.0)
    found = np.zeros(k)
    found[: len(values)] = np.where(values > floor, values, 0.0)
    return found


def by_image(
    lower: Float64[Tensor, "vectors vectors"], image: Int64[Tensor, " vectors"]
) -> tuple[Float64[np.ndarray, " images"], Float64[np.ndarray, "images images"]]:
    """t_i = sum_r ||u_r||^2 over the vectors r of image i, and B_ij = sum_rs (u_r . u_s)^2 over those of i and j."""
    own = torch.eye(int(image.max()) + 1, dtype=lower.dtype, device=lower.device)[:, image]  # [images, vectors]
    diagonal = lower.diagonal()
    half = own @ lower.tril(-1).square_() @ own.T
    norms, overlaps = own @ diagonal, half + half.T + (own @ diagonal.square()).diag()
    return norms.cpu().numpy(), overlaps.cpu().numpy()


def corrected_rank(norms: Float64[np.ndarray, " images"], overlaps: Float64[np.ndarray, "images images"]) -> Rank:
    """The effective rank from pairs of different images, which are independent, with its jackknife error.

    E tr F_i tr F_j = (tr F)^2 and E tr(F_i F_j) = ||F||^2 for i != j, so the ratio of the two sums over pairs does not
    have the bias of the sample's own effective rank, in which each image also meets itself:

        r = sum_{i != j} t_i t_j / sum_{i != j} B_ij;      stderr^2 = (N - 1) / N sum_i (r_(i) - mean r_(.))^2,

    r_(i) without image i. The scale of t and B cancels. What bias is left is that of a ratio of sums; in simulations
    of 20 to 200 images with log-normal sizes it was at most a third of the standard error, and +-1.96 of these covered
    the truth in 95 % or more.
    """
    total, own = norms.sum(), np.diagonal(overlaps)
    above, below = total**2 - (norms**2).sum(), overlaps.sum() - own.sum()
    without = above - 2 * norms * (total - norms), below - 2 * (overlaps.sum(1) - own)
    if len(norms) < 2 or below <= 0:
        return Rank(NAN, NAN)
    if len(norms) < 3 or (without[1] <= 0).any():
        return Rank(float(above / below), NAN)
    left_out = without[0] / without[1]
    spread = ((left_out - left_out.mean()) ** 2).sum()
    return Rank(float(above / below), math.sqrt((len(norms) - 1) / len(norms) * spread))
