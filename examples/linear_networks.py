"""Deep linear networks by gradient descent, and what is known of them without training.

Used by deep_linear.py and matrix_completion.py. Time is that of the gradient flow: learning rate x steps.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from typing import Protocol

import torch
from scipy.optimize import brentq
from torch import Tensor

START = 1e-3  # singular values of the product before training


# ---- networks, tasks, gradient descent


class Objective(Protocol):
    def gradient(self, product: Tensor) -> Tensor:
        """Of the loss, by the product of the layers."""


@dataclass(frozen=True, eq=False)
class Task:
    """Matrix completion, loss weight/2 sum (W - target)^2 over the observed entries (1; others 0); [..., n, n]."""

    target: Tensor
    observed: Tensor
    weight: float = 1.0

    def gradient(self, product: Tensor) -> Tensor:
        return self.weight * self.observed * (product - self.target)

    def unobserved_error(self, product: Tensor) -> Tensor:
        """Mean squared error of the entries that were not observed, over the mean square of the target there."""
        hidden = 1 - self.observed
        error = (hidden * (product - self.target) ** 2).sum((-1, -2))
        return error / (hidden * self.target**2).sum((-1, -2))


@dataclass(frozen=True)
class Pathways:
    """Loss 1/2 (a + b - 1)^2 of the two pathways in product [..., 2, 1, 1]; in the deficit b does not learn."""

    learning: tuple[float, float] = (1.0, 1.0)

    def gradient(self, product: Tensor) -> Tensor:
        return (product.sum(-3, keepdim=True) - 1) * product.new_tensor(self.learning).view(2, 1, 1)


def product(weights: Tensor) -> Tensor:
    """W_N ... W_1 of weights [layer, ..., n, n]."""
    return reduce(lambda below, layer: layer @ below, weights)


def small_identity(depth: int, size: int, start: float = START) -> Tensor:
    """Every layer the same multiple of the identity, so that the product has all singular values `start`."""
    return (start ** (1 / depth) * torch.eye(size, dtype=torch.float64)).expand(depth, size, size)


def descend(weights: Tensor, task: Objective, time: float, rate: float) -> Tensor:
    """Full-batch gradient descent of all networks in `weights` at once: dL/dW_k = (W_N..W_k+1)' G (W_k-1..W_1)'."""
    layers = list(weights)
    for _ in range(round(time / rate)):
        below = [layers[0]]
        for layer in layers[1:]:
            below.append(layer @ below[-1])
        upstream = task.gradient(below[-1])
        for k in reversed(range(1, len(layers))):
            gradient, upstream = upstream @ below[k - 1].mT, layers[k].mT @ upstream
            layers[k] = layers[k] - rate * gradient
        layers[0] = layers[0] - rate * upstream
    return torch.stack(layers)


@dataclass(frozen=True, eq=False)
class Removal:
    """One network for each end t0 of the deficit: weights [layer, t0, ...] at t0, and after the clean training."""

    at_end: Tensor
    final: Tensor


def remove(
    weights: Tensor, deficit: Objective, task: Objective, ends: Iterable[float], *, clean: float, rate: float
) -> Removal:
    """The deficit is trained once, every t0 branches off it; then the same `clean` time for all."""
    kept = []
    for before, end in pairwise([0.0, *ends]):
        weights = descend(weights, deficit, end - before, rate)
        kept.append(weights)
    at_end = torch.stack(kept, dim=1)
    return Removal(at_end, descend(at_end, task, clean, rate))


# ---- what is known without training


def clock(depth: int, share: float) -> float:
    """Time on the trajectory dx/dt = N x^(2 - 2/N) (1 - x) of a mode of singular value 1 (Saxe, McClelland, Ganguli
    2014; Arora, Cohen, Hu, Luo 2019 for N > 2), up to a constant."""
    if depth == 1:
        return -math.log(1 - share)
    if depth == 2:
        return math.log(share / (1 - share)) / 2
    assert depth == 3
    u = share ** (1 / 3)  # du/dt = u^2 (1 - u^3), in partial fractions
    logarithms = math.log((1 + u + u * u) / (1 - u) ** 2) / 6
    return logarithms - 1 / u - math.atan((2 * u + 1) / math.sqrt(3)) / math.sqrt(3)


def time_to_learn(depth: int, start: float, share: float = 0.5, sigma: float = 1.0) -> float:
    """When a mode of singular value `sigma` that began at `start` has `share` of it."""
    return (clock(depth, share) - clock(depth, start / sigma)) / sigma ** (2 - 2 / depth)


def learnt(depth: int, start: float, time: float, sigma: float = 1.0) -> float:
    """How much of a mode is learnt at a time: the inverse of `time_to_learn`, times sigma."""
    low, high = start / sigma, 1 - 1e-12
    if time <= 0:
        return start
    if low >= high or time >= time_to_learn(depth, start, high, sigma):
        return sigma
    share = brentq(lambda x: time_to_learn(depth, start, x, sigma) - time, low, high, xtol=1e-15)
    return sigma * float(share)


def phi(depth: int, x: float) -> float:
    """phi' = x^-(2 - 2/N): where two modes share an error, a combination of their phi never changes."""
    return math.log(x) if depth == 2 else x ** (2 / depth - 1) / (2 / depth - 1)


def hidden_diagonal_error(depth: int, before: float, size: int) -> float:
    """Error of the diagonal in the end, when all singular values were `before` at the end of the deficit; N > 1.

    Fitting the all-ones matrix off the diagonal moves s, the singular value of (1, ..., 1), and r, that of all other
    directions: ds/dt = N s^p (n-1) e and dr/dt = -N r^p e with p = 2 - 2/N and e = 1 - (s - r)/n, what is missing
    off the diagonal. So phi(s) + (n-1) phi(r) never changes (for N = 2 it is the logarithm of the determinant); in
    the end e = 0, so s = n + r, and the diagonal is 1 + r.
    """

    def broken(log_r: float) -> float:
        r = math.exp(log_r)
        return phi(depth, size + r) + (size - 1) * phi(depth, r) - size * phi(depth, before)

    return math.exp(2 * brentq(broken, math.log(before) - 50, math.log(before) + 50, xtol=1e-14))


def share_of_b(depth: int, onset: float, length: float, start: float = START) -> float:
    """What pathway b contributes in the end, after a deficit in [onset, onset + length); N > 1.

    Before it a = b = x with dx/dt = N x^p (1 - 2x). In it b stays and da/dt = N a^p (1 - b - a). After it both learn
    from the same error, so phi(a) - phi(b) never changes; in the end a + b = 1.
    """
    b = learnt(depth, start, 2 * onset, 0.5)
    a = learnt(depth, b, length, 1 - b)
    if a + b >= 1:  # all is learnt: nothing moves any more
        return b
    return float(brentq(lambda x: phi(depth, 1 - x) - phi(depth, x) - phi(depth, a) + phi(depth, b), b, 1 - a))


def fisher_closed_form(weights: Tensor) -> Tensor:
    """tr F_l of squared error (unit variance, H = I) over the n unit vectors as inputs, [layer].

    J_l of input x has squared norm ||W_N ... W_{l+1}||_F^2 ||W_{l-1} ... W_1 x||^2; the mean over x is 1/n of a sum.
    """
    size = weights.shape[-1]
    identity = torch.eye(size, dtype=weights.dtype)
    above = [product(torch.stack([identity, *weights[layer + 1 :]])).square().sum() for layer in range(len(weights))]
    below = [product(torch.stack([identity, *weights[:layer]])).square().sum() for layer in range(len(weights))]
    return torch.stack(above) * torch.stack(below) / size


def hidden_diagonal(size: int) -> tuple[Task, Task]:
    """Deficit: all entries of the identity. Task: the all-ones matrix, of rank one, without its diagonal."""
    ones, identity = torch.ones(size, size, dtype=torch.float64), torch.eye(size, dtype=torch.float64)
    return Task(identity, ones), Task(ones, ones - identity)
