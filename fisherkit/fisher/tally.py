"""From per-image values to means and standard errors.

A group is one image, or one batch for a layer that the batch engine measures. With y_g the mean over draws of
group g's value, n_g its images and N = sum n_g:

    trace        = sum_g n_g y_g / N
    stderr^2     = G / (G - 1) sum_g n_g^2 (y_g - trace)^2 / N^2        (over images; s / sqrt(N) for n_g = 1)
    stderr_draws^2 = sum_g n_g^2 var_g / draws / N^2,                    var_g over the draws of group g

all in float64. Draws are independent between groups, so `stderr` contains their noise.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float64
from torch import Tensor


@dataclass(frozen=True)
class Summary:
    """A mean with its standard error and the part of it that the draws cause."""

    mean: float
    stderr: float
    stderr_draws: float


@dataclass
class Column:
    """The values of one layer, or of the total, batch by batch."""

    means: list[Tensor] = field(default_factory=list)  # [groups]
    variances: list[Tensor] = field(default_factory=list)  # [groups], over draws; empty for one draw
    weights: list[Tensor] = field(default_factory=list)  # [groups], images

    def add(self, values: Float64[Tensor, "draws groups"], images: int) -> None:
        """One batch's values: a group an image, or one group."""
        groups = values.shape[1]
        self.means.append(values.mean(0))
        if len(values) > 1:
            self.variances.append(values.var(0))
        self.weights.append(torch.full((groups,), images / groups, dtype=torch.float64, device=values.device))

    @property
    def finite(self) -> bool:
        """Whether every value is finite."""
        return all(bool(torch.isfinite(mean).all()) for mean in self.means)

    def summary(self, draws: int) -> Summary:
        """Mean and standard errors as defined above."""
        y, n = torch.cat(self.means), torch.cat(self.weights)
        total, groups = n.sum(), len(y)
        mean = (n * y).sum() / total
        stderr = math.nan
        if groups > 1:
            stderr = math.sqrt(float((n * (y - mean)).square().sum()) * groups / (groups - 1)) / float(total)
        within = math.nan
        if self.variances:
            within = math.sqrt(float((n.square() * torch.cat(self.variances)).sum()) / draws) / float(total)
        return Summary(float(mean), stderr, within)


class Tally:
    """Collects the values of every layer and of the total."""

    def __init__(self, layers: Sequence[str], *, joint: bool) -> None:
        self.columns = {name: Column() for name in layers}
        self.total = Column()
        self.joint = joint  # some layer has one value a batch: the total can have no more
        self.images = 0

    def add(self, values: Mapping[str, Float64[Tensor, "draws _"]], images: int) -> None:
        """One batch; no host synchronisation."""
        for name, value in values.items():
            self.columns[name].add(value, images)
        parts = [value.mean(1, keepdim=True) if self.joint else value for value in values.values()]
        self.total.add(torch.stack([part.to(parts[0].device) for part in parts]).sum(0), images)
        self.images += images

    def check_finite(self) -> None:
        """Raise FloatingPointError naming the layers whose values are not finite."""
        bad = [name for name, column in self.columns.items() if not column.finite]
        if bad:
            more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
            raise FloatingPointError(
                f"Fisher trace is not finite for layer {', '.join(map(repr, bad[:5]))}{more}. "
                "Check the inputs and the weights for NaN, infinity and overflow."
            )

    def reached(self, rel_se: float, draws: int) -> bool:
        """Whether the total's relative standard error is at most rel_se."""
        summary = self.total.summary(draws)
        return summary.stderr <= rel_se * summary.mean
