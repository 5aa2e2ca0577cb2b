"""How often 95 % intervals of the trace cover it, and how wide they are: which interval, when, after stopping.

    python benchmarks/coverage.py [--trials 2000] [--resamples 999] [--out FILE.json]

The truth is the mean over a pool of 1,500 real images (fashion-mini), or over a part of it; samples are drawn from
the pool. The networks are those of tests/data/networks.npz (64-128-10, ReLU): untrained, half-trained (train loss
0.5), fitted (0.03) and overfitted (0.002). Per-image values are computed in closed form, and their mean is compared
with `fisher_trace` before anything else. A cell is

    coverage (truth above the interval / truth below it) half width over the truth

Three tables: intervals by sample size, with the share of the samples for which `FisherTrace.notes` warns of the normal
one; after stopping by `rel_se`; in a finite population.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from timing import environment
from torch import nn

import fisherkit
from fisherkit.fisher.intervals import hall_interval, normal_is_trusted
from fisherkit.fisher.tally import finite_population

Values = NDArray[np.float64]
NETWORKS = ("untrained", "half", "fitted", "overfitted")
ESTIMATORS = ("exact", "propagated", "empirical")
SIZES = (50, 100, 200, 500, 1000)
POOL, DRAWS = 1500, 200
Z = stats.norm.ppf(0.975)


@dataclass(frozen=True)
class Coverage:
    """How one interval did in one setting; shares of the trials."""

    table: str
    network: str
    estimator: str
    setting: str
    interval: str
    covered: float
    truth_above: float
    truth_below: float
    half_width: float  # mean, over the truth
    trials: int

    def __str__(self) -> str:
        return f"{self.covered:5.1%} ({self.truth_above:5.1%}/{self.truth_below:5.1%}) {self.half_width:5.1%}"


def pooled() -> tuple[torch.Tensor, torch.Tensor]:
    """The pool as 8 x 8 averages, and its labels."""
    train, _ = fisherkit.load_images("fashion-mini")
    return nn.functional.avg_pool2d(train.normalised()[:POOL], 4).flatten(1).double(), train.labels[:POOL]


def network(name: str) -> nn.Sequential:
    """One of `NETWORKS`, in float64."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    if name != "untrained":
        stored = np.load(Path(__file__).parents[1] / "tests" / "data" / "networks.npz")
        model.load_state_dict({key: torch.from_numpy(stored[f"{name}.{key}"]) for key in model.state_dict()})
    return model.double()


@torch.no_grad()
def image_values(model: nn.Sequential, x: torch.Tensor, y: torch.Tensor, estimator: str) -> Values:
    """Unbiased values of the total trace, [draws, images]: `DRAWS` for propagated, else 1."""
    hidden = model[1](model[0](x))
    p = model[2](hidden).softmax(1)
    root = p.sqrt()

    def norms(v: torch.Tensor) -> torch.Tensor:  # [images, 10] -> [images]; sum over both layers, weight and bias
        g = (v @ model[2].weight) * (hidden > 0)
        return g.square().sum(1) * (x.square().sum(1) + 1) + v.square().sum(1) * (hidden.square().sum(1) + 1)

    def through_root(eps: torch.Tensor) -> torch.Tensor:  # S eps, S S^T = diag(p) - p p^T
        return root * eps - p * (root * eps).sum(1, keepdim=True)

    if estimator == "empirical":
        return norms(p - nn.functional.one_hot(y, 10))[None].numpy()
    if estimator == "exact":
        return sum(norms(through_root(row.expand_as(p))) for row in torch.eye(10).double())[None].numpy()
    generator = torch.Generator().manual_seed(0)
    signs = (torch.randint(0, 2, p.shape, generator=generator).double() * 2 - 1 for _ in range(DRAWS))
    return torch.stack([norms(through_root(eps)) for eps in signs]).numpy()


def sampled(values: Values, shape: tuple[int, ...], rng: np.random.Generator) -> Values:
    """Images with replacement, each with a draw of its own."""
    return values[rng.integers(0, len(values), shape), rng.integers(0, POOL, shape)]


def summary_intervals(y: Values) -> dict[str, Values]:
    """Intervals [trials, 2] from mean, standard error and skewness of samples [trials, n]."""
    n = y.shape[1]
    mean, stderr, skewness = y.mean(1), stats.sem(y, axis=1), stats.skew(y, axis=1)
    t = stats.t.ppf(0.975, n - 1)

    def symmetric(middle: Values, half: Values) -> Values:
        return np.stack([middle - half, middle + half], 1)

    a, b = skewness / n**0.5 / 3, skewness / n**0.5 / 6
    normal_hall = [mean - stderr * (np.cbrt(1 + 3 * a * (z - b)) - 1) / a for z in (Z, -Z)]
    return {
        "normal": symmetric(mean, Z * stderr),
        "Student": symmetric(mean, t * stderr),
        "log-normal": mean[:, None] * np.exp(symmetric(0 * mean, Z * stderr / mean)),
        "Johnson": symmetric(mean + skewness * stderr / n**0.5 / 6, t * stderr),
        "Hall, normal": np.stack(normal_hall, 1),
        "Hall, Student": hall_interval(mean, stderr, skewness, n),
    }


def bootstrap_intervals(y: Values, resamples: int, rng: np.random.Generator) -> dict[str, Values]:
    """Bootstrap-t and BCa (as scipy.stats.bootstrap has it, with the mean's jackknife in closed form)."""
    found: dict[str, list[Values]] = {"bootstrap-t": [], "BCa": []}
    n = y.shape[1]
    for row in y:
        again = row[rng.integers(0, n, (resamples, n))]
        mean, means, stderrs = row.mean(), again.mean(1), stats.sem(again, axis=1)
        d = row - mean
        with np.errstate(divide="ignore", invalid="ignore"):  # a resample of one value only
            studentised = np.nan_to_num((means - mean) / stderrs)
        found["bootstrap-t"].append(mean - stats.sem(row) * np.quantile(studentised, [0.975, 0.025]))
        acceleration = (d**3).sum() / (6 * (d**2).sum() ** 1.5)
        z0 = stats.norm.ppf(((means < mean).mean() + (means <= mean).mean()) / 2)
        z = z0 + np.array([-Z, Z])
        found["BCa"].append(np.quantile(means, stats.norm.cdf(z0 + z / (1 - acceleration * z))))
    return {name: np.array(limits) for name, limits in found.items()}


def judged(intervals: Values, truth: Values | float, labels: tuple[str, ...]) -> Coverage:
    """Compare intervals [trials, 2] with the truth; `labels` are the first five fields."""
    low, high = intervals.T
    return Coverage(
        *labels,
        covered=float(((low <= truth) & (truth <= high)).mean()),
        truth_above=float((truth > high).mean()),
        truth_below=float((truth < low).mean()),
        half_width=float(((high - low) / truth).mean() / 2),
        trials=len(intervals),
    )


def by_size(values: Values, setting: tuple[str, str], options: argparse.Namespace) -> Iterator[Coverage]:
    """Every interval at every sample size; and the normal one where `FisherTrace.notes` does not warn of it."""
    rng = np.random.default_rng(0)
    for n in SIZES:
        y = sampled(values, (options.trials, n), rng)
        warned = np.array([not normal_is_trusted(k, n) for k in stats.skew(y, axis=1)])
        labels = ("by size", *setting, f"n={n} (warned {warned.mean():.0%})")
        intervals = summary_intervals(y) | bootstrap_intervals(y, options.resamples, rng)
        intervals["Hall where warned"] = np.where(warned[:, None], intervals["Hall, Student"], intervals["normal"])
        for name, limits in intervals.items():
            yield judged(limits, values.mean(), (*labels, name))


def after_stopping(values: Values, setting: tuple[str, str], options: argparse.Namespace) -> Iterator[Coverage]:
    """Batches of 50, from 100 images on, until stderr <= rel_se * mean; at most 20,000 images."""
    for rel_se in (0.2, 0.1, 0.05):
        rng = np.random.default_rng(0)
        stopped = [_stopped_sample(values, rel_se, rng) for _ in range(options.trials)]
        rows = [(y.mean(), stats.sem(y), stats.skew(y), len(y)) for y in stopped]
        mean, stderr, skewness, n = np.array(rows).T
        labels = ("after stopping", *setting, f"rel_se={rel_se} (median n={np.median(n):.0f})")
        normal = np.stack([mean - Z * stderr, mean + Z * stderr], 1)
        yield judged(normal, values.mean(), (*labels, "normal"))
        yield judged(hall_interval(mean, stderr, skewness, n), values.mean(), (*labels, "Hall, Student"))


def _stopped_sample(values: Values, rel_se: float, rng: np.random.Generator) -> Values:
    y = sampled(values, (20_000,), rng)
    n = np.arange(100, len(y) + 1, 50)
    total, squares = np.cumsum(y)[n - 1], np.cumsum((y - values.mean()) ** 2)[n - 1]
    mean = total / n
    variance = (squares - n * (mean - values.mean()) ** 2) / (n - 1)
    reached = np.flatnonzero(np.sqrt(variance / n) <= rel_se * mean)
    return y[: n[reached[0]] if len(reached) else len(y)]


def finite(values: Values, setting: tuple[str, str], options: argparse.Namespace) -> Iterator[Coverage]:
    """n images without replacement out of N = 500 that differ from trial to trial; the truth is their own mean."""
    stochastic = len(values) > 1
    for n in (300, 500) if stochastic else (300, 450):  # 500 of 500 without draws: no error
        for draws in (2, 4, 8) if stochastic else (1,):
            rng = np.random.default_rng(0)
            trials = [_finite_trial(values, n, draws, rng) for _ in range(options.trials)]
            mean, stderr, skewness, truth = np.array(trials).T
            labels = ("finite population", *setting, f"n={n} of N=500" + (f", {draws} draws" if stochastic else ""))
            normal = np.stack([mean - Z * stderr, mean + Z * stderr], 1)
            yield judged(normal, truth, (*labels, "normal"))
            yield judged(hall_interval(mean, stderr, skewness, n), truth, (*labels, "Hall, Student"))


def _finite_trial(values: Values, n: int, draws: int, rng: np.random.Generator) -> tuple[float, float, float, float]:
    """Mean, standard error and skewness as `Tally` has them, and the population's mean."""
    population = rng.choice(POOL, 500, replace=False)
    y = values[rng.integers(0, len(values), (draws, n)), population[:n]]
    noise = y.var(0, ddof=1).mean() / draws / n if draws > 1 else 0.0
    squared = finite_population(stats.sem(y.mean(0)) ** 2, noise, n / 500)
    skewness = stats.skew(y.mean(0)) * (1 - noise / squared)
    return y.mean(), squared**0.5, skewness, values[:, population].mean()


TABLES: dict[str, Callable[[Values, tuple[str, str], argparse.Namespace], Iterator[Coverage]]] = {
    "by size": by_size,
    "after stopping": after_stopping,
    "finite population": finite,
}


def show(rows: list[Coverage]) -> None:
    """One block a table and network and estimator: a line an interval, a column a setting."""
    settings = list(dict.fromkeys(row.setting for row in rows))
    first = rows[0]
    print(f"\n{first.table}: {first.network}, {first.estimator}, {max(row.trials for row in rows)} trials")
    print(f"{'':18}" + "".join(f"{setting:>29}" for setting in settings))
    for name in dict.fromkeys(row.interval for row in rows):
        cells = {row.setting: str(row) for row in rows if row.interval == name}
        print(f"{name:18}" + "".join(f"{cells.get(setting, '-'):>29}" for setting in settings))


def summarise(rows: list[Coverage]) -> None:
    """Over all networks, estimators and settings of the first table: how far coverage is from 95 %."""
    print(f"\nover {len({(row.network, row.estimator, row.setting) for row in rows})} settings of the table by size")
    print(f"{'':18}{'mean |coverage - 95 %|':>24}{'least coverage':>16}{'mean half width':>17}")
    for name in dict.fromkeys(row.interval for row in rows):
        covered = np.array([row.covered for row in rows if row.interval == name])
        width = np.mean([row.half_width for row in rows if row.interval == name])
        print(f"{name:18}{np.abs(covered - 0.95).mean():24.1%}{covered.min():16.1%}{width:17.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--resamples", type=int, default=999)
    parser.add_argument("--tables", nargs="*", choices=TABLES, default=list(TABLES))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    x, y = pooled()
    found: list[Coverage] = []
    for name in NETWORKS:
        model = network(name)
        for estimator in ESTIMATORS:
            values = image_values(model, x, y, estimator)
            measured = fisherkit.fisher_trace(model, x, y, estimator=estimator, draws=50 if len(values) > 1 else 1)
            error = abs(measured.total - values.mean())
            assert error <= 1e-9 * measured.total or error < 4 * measured.total_stderr_draws, (name, estimator)
            for table in options.tables:
                rows = list(TABLES[table](values, (name, estimator), options))
                show(rows)
                found += rows
    if "by size" in options.tables:
        summarise([row for row in found if row.table == "by size"])
    print(json.dumps(environment()))
    if options.out is not None:
        document: dict[str, Any] = {"environment": environment(), "rows": [asdict(row) for row in found]}
        options.out.write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
