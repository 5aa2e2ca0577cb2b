"""From per-image values to means, standard errors and skewness.

A group is one image, or one batch for a layer that the batch engine measures. With y_g the mean over draws of
group g's value, n_g its images, G groups, N = sum n_g and d_g = n_g (y_g - trace):

    trace          = sum_g n_g y_g / N
    stderr^2       = G / (G - 1) sum_g d_g^2 / N^2                 (over images; s / sqrt(N) for n_g = 1)
    stderr_draws^2 = sum_g n_g^2 var_g / draws / N^2,              var_g over the draws of group g
    skewness       = sqrt(G) sum_g d_g^3 / (sum_g d_g^2)^(3/2)     (that of the y_g where the n_g are equal)

all in float64. Draws are independent between groups, so `stderr` contains their noise.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float64
from torch import Tensor

from .intervals import normal_is_trusted

WORTH_A_NOTE = 0.01  # share of the total from which a layer's interval is worth a note


@dataclass(frozen=True)
class Summary:
    """A mean with its standard error, the part of it that the draws cause, and the skewness of the groups' values.

    With a finite population the skewness counts by the share of stderr^2 that the images cause: of the whole
    population nothing is left of it.
    """

    mean: float
    stderr: float
    stderr_draws: float
    skewness: float
    groups: int

    @property
    def relative_stderr(self) -> float:
        """Of the mean; infinite where it cannot be told."""
        return self.stderr / self.mean if self.mean > 0 and self.stderr >= 0 else math.inf


@dataclass
class Column:
    """The values of one layer, or of the total, batch by batch."""

    means: list[Tensor] = field(default_factory=list)  # [groups]
    variances: list[Tensor] = field(default_factory=list)  # [groups], over draws; empty for one draw
    weights: list[Tensor] = field(default_factory=list)  # [groups], images

    def add(self, values: Float64[Tensor, "draws groups"], images: int) -> None:
        """One batch's values: a group an image, or one group."""
        mean = values.mean(0)
        self.means.append(mean)
        if len(values) > 1:
            self.variances.append(values.var(0))
        self.weights.append(torch.full_like(mean, images / len(mean)))

    @property
    def finite(self) -> bool:
        """Whether every value is finite."""
        return bool(torch.isfinite(torch.cat(self.means)).all())  # one wait for the device

    def summary(self, draws: int, population: int | None = None) -> Summary:
        """Mean, standard errors and skewness as defined above; `population` as in `finite_population`."""
        y, n = torch.cat(self.means), torch.cat(self.weights)
        total, groups = n.sum(), len(y)
        mean = (n * y).sum() / total
        over_images = _squared_stderr(n * (y - mean)) / total.square()
        over_draws = torch.full_like(total, math.nan)
        if self.variances:
            over_draws = (n.square() * torch.cat(self.variances)).sum() / draws / total.square()
        numbers = torch.stack([mean, over_images, over_draws, _skewness(n * (y - mean)), total])
        mean_, images_, draws_, skewness, count = numbers.tolist()  # the only wait for the device
        if population is not None:
            check_population(population, images=round(count))
            noise = draws_ if self.variances else 0.0
            images_ = finite_population(images_, noise, round(count) / population)
            skewness *= max(0.0, 1 - noise / images_) if images_ > 0 else 0.0
        return Summary(mean_, math.sqrt(images_), math.sqrt(draws_), skewness, groups)


def _squared_stderr(d: Float64[Tensor, " groups"]) -> Float64[Tensor, ""]:
    """G / (G - 1) sum d^2; NaN for one group."""
    groups = len(d)
    return d.square().sum() * (groups / (groups - 1) if groups > 1 else math.nan)


def _skewness(d: Float64[Tensor, " groups"]) -> Float64[Tensor, ""]:
    """sqrt(G) sum d^3 / (sum d^2)^(3/2) of centred d; NaN for fewer than 3 groups, 0 where all are equal."""
    if len(d) < 3:
        return torch.full_like(d.sum(), math.nan)
    scale = d.abs().max()  # so that cubes of very large or small values stay in range
    u = d / torch.where(scale > 0, scale, 1.0)
    cubes, squares = u.pow(3).sum(), torch.where(scale > 0, u.square().sum(), 1.0)
    return cubes / squares.pow(1.5) * math.sqrt(len(d))


def finite_population(stderr_squared: float, draws_squared: float, fraction: float) -> float:
    """The squared standard error of the mean over a finite population, of which a fraction f = n / N was measured.

    For images drawn without replacement, with s^2 the variance of the groups' means and `within` their mean variance
    over draws (0 for exact and empirical, which draw nothing):

        stderr^2 = (1 - f) s_between^2 / n + within / (draws n),        s_between^2 = s^2 - within / draws
                 = (1 - f) stderr_squared + f draws_squared

    as stderr_squared = s^2 / n and draws_squared = within / (draws n). Of the whole population, f = 1, only the
    noise of the draws is left. The same for groups of n_g images, whose values' variance over draws contains the
    noise that the images of a batch share. Where little but the draws is left, few draws of a fitted network rest on
    few images: of all 500 images Hall's interval covered 92 and 95 % with 2 and 4 draws at train loss 0.03, 88, 93 and
    94 % with 2, 4 and 8 at 0.002 (benchmarks/coverage.py).
    Source: W. G. Cochran, Sampling Techniques (3rd ed., 1977), theorem 2.2.
    """
    return (1 - fraction) * stderr_squared + fraction * draws_squared if fraction < 1 else draws_squared


def skewness_note(layers: Sequence[Summary], total: Summary) -> str | None:
    """What to say where mean +- 1.96 stderr is not to be trusted: see `normal_is_trusted`; None where it is."""
    watched = [s for s in layers if s.mean > WORTH_A_NOTE * total.mean]
    skewed = [s for s in watched if not normal_is_trusted(s.skewness, s.groups)]
    if normal_is_trusted(total.skewness, total.groups) and not skewed:
        return None
    above = f"layers with over {WORTH_A_NOTE:.0%} of the trace"
    where = f"{len(skewed)} of the {len(watched)} {above}" if skewed else "the total"
    if skewed and not normal_is_trusted(total.skewness, total.groups):
        where = f"the total and {where}"
    worst = max([total, *skewed], key=lambda s: s.skewness**2 / s.groups)
    return (
        f"a few images carry {where} (skewness {worst.skewness:.2g} over {worst.groups}): ± 1.96 standard errors are "
        "not a 95 % interval; use more images (--probe-images), or result.interval() and result.total_interval()"
    )


def check_population(
    population: int | None,
    *,
    drawn: bool = False,
    draws: int = 1,
    projections: int | None = None,
    images: int = 0,
    joint: str | None = None,
) -> None:
    """Whether the mean over a finite population can be told from what is measured.

    Args:
        population: its images.
        drawn: whether the estimator draws (propagated, sampled).
        draws: how many times an image.
        projections: of the gradients, if they are projected.
        images: images measured, once known.
        joint: why the images of a batch depend on each other, if they do.

    Raises:
        ValueError: population is smaller than what was measured; the noise of the draws or of the projections, which
            differs from draw to draw, does not show; the images have no values of their own, of which a population
            could have a mean.
    """
    if population is None:
        return
    if population < max(1, images):
        raise ValueError(
            f"population must be at least the number of images measured, {max(1, images)}; got {population!r}. It is "
            "the number of images of which these are a sample without replacement."
        )
    if drawn and draws < 2:
        raise ValueError(
            f"draws must be at least 2 with population={population}, to tell the noise of the draws from the spread "
            f"of the images; got {draws!r}. Use draws=2, or estimator='exact'."
        )
    if projections is not None and not drawn:
        raise ValueError(
            f"projections must be None with population={population} and an estimator that draws nothing, because their "
            f"noise would not show in the standard error; got {projections!r}. Or use estimator='propagated', draws=2."
        )
    if joint is not None:
        raise ValueError(
            f"population must be None where the images of a batch are one joint model ({joint}); got {population!r}."
        )


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

    def reached(
        self, rel_se: float, draws: int, *, layers_above: float | None = None, population: int | None = None
    ) -> bool:
        """Whether the relative standard error is at most rel_se.

        A sample that happens to lack the images that carry the trace stops early. Measured coverage of the normal 95 %
        interval after stopping (batches of 50, at least 100 images, exact and propagated; benchmarks/coverage.py):
        93 to 95 % at an untrained and a half-trained network; at fitted ones 87 to 91 % for rel_se = 0.2, 92 to 95 %
        for 0.1, 93 to 95 % for 0.05. Hall's: 94 to 96 %; 91 to 95, 93 to 95, 93 to 95 %.

        Args:
            rel_se: of the total.
            draws: an image.
            layers_above: a share of the total: every layer that holds more must be known as well as the total;
                None asks for the total alone.
            population: as in `finite_population`.
        """
        total = self.total.summary(draws, population)
        if not total.stderr <= rel_se * total.mean:
            return False
        if layers_above is None:
            return True
        layers = (column.summary(draws, population) for column in self.columns.values())
        return all(s.stderr <= rel_se * s.mean for s in layers if s.mean > layers_above * total.mean)
