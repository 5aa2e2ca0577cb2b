"""The result of a measurement: a frozen value that carries everything a reader must know about the numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .intervals import hall_interval
from .vectors import STOCHASTIC

Values = NDArray[np.float64]
LONGEST_NAME = 60  # a longer layer's name has a line of its own, so that the table stays within 120 columns


@dataclass(frozen=True, eq=False)
class FisherTrace:
    """Per-layer trace of the Fisher information with its standard errors.

    Sum over the layer's parameters, mean over images; natural logarithm, so nats^2.
    `stderr` is the standard error of the trace as an estimate over the images' distribution (it contains the
    noise of the draws); `stderr_draws` is the part due to the draws alone, which is what remains when the
    images are the whole question; NaN where it cannot be told (one image; fewer than 2 draws).
    With `population`, the question is the mean over so many images, of which those measured are a sample without
    replacement, and `stderr` is the error of that (`finite_population` in tally.py has the formula).
    `skewness` is that of the values behind each trace, one an image (one a batch for the batch engine); NaN for fewer
    than three. Where it is large, `interval` and `total_interval` are to be trusted rather than 1.96 stderr.
    """

    layers: tuple[str, ...]
    trace: Values  # [layers]
    stderr: Values  # [layers]
    stderr_draws: Values  # [layers]
    skewness: Values  # [layers]
    total: float
    total_stderr: float
    total_stderr_draws: float
    total_skewness: float
    images: int
    groups: int  # values behind the total: as many as images, or as batches where the batch engine measures a layer
    draws: int
    engines: Mapping[str, str]  # layer -> engine
    parameters: Mapping[str, int]  # layer -> number of trainable parameters
    coverage: float  # measured share of the trainable parameters: 1.0, or the call raised
    frozen_parameters: int  # parameters with requires_grad=False, which are not measured
    estimator: str
    loss: str
    batchnorm: str
    dtype: str
    device: str
    seed: int
    entropy: float  # mean entropy of the predictions, nats
    batch_size: int  # images in a pass; in later ones, where memory ran out and they had to be smaller
    population: int | None = None
    reasons: Mapping[str, str] = field(default_factory=dict)  # layer -> why not by the first choice of engine
    notes: tuple[str, ...] = ()

    def __getitem__(self, layer: str) -> float:
        """The trace of one layer."""
        if layer not in self.layers:
            raise KeyError(f"no layer {layer!r}; the layers are {', '.join(self.layers)}")
        return float(self.trace[self.layers.index(layer)])

    @property
    def share(self) -> Values:
        """Each layer's share of the total."""
        return self.trace / self.total if self.total > 0 else np.full(len(self.layers), np.nan)

    def interval(self, level: float = 0.95) -> Values:
        """Each layer's asymmetric interval [layers, 2], right for skewed values too: see `hall_interval`."""
        groups = [self.groups if self.engines[name] == "batch" else self.images for name in self.layers]
        return hall_interval(self.trace, self.stderr, self.skewness, groups, level=level)

    def total_interval(self, level: float = 0.95) -> Values:
        """The total's interval [2]."""
        return hall_interval(self.total, self.total_stderr, self.total_skewness, self.groups, level=level)

    def __str__(self) -> str:
        notes = (f"note: {note}" for note in self.notes)
        return "\n".join([self._title(), *self._table(), *why(self.engines, self.reasons), *notes])

    def _title(self) -> str:
        kind, how = kind_of(self.estimator, self.draws)
        whole = "" if self.population is None else f" of {self.population}"
        return (
            f"{kind} Fisher trace, {how}, {self.images}{whole} images, {self.loss}, "
            f"batchnorm={self.batchnorm}, {self.dtype}, seed {self.seed} (nats²; ± standard error)"
        )

    def _table(self) -> list[str]:
        rows = [("layer", f"{'trace':>11}  {'±':>9}  {'share':>6}  {'parameters':>10}  engine")]
        for name, trace, stderr, share in zip(self.layers, self.trace, self.stderr, self.share, strict=True):
            size, engine = self.parameters[name], self.engines[name]
            rows.append((name, f"{trace:11.4g}  {stderr:9.2g}  {_percent(share)}  {size:10,}  {engine}"))
        size = sum(self.parameters.values())
        rows.append(("total", f"{self.total:11.4g}  {self.total_stderr:9.2g}  {1:6.0%}  {size:10,}"))
        return named_rows(rows)


def _percent(share: float) -> str:
    return f"{'-':>6}" if np.isnan(share) else f"{share:6.1%}"


def kind_of(estimator: str, draws: int) -> tuple[str, str]:
    """True or empirical, and how it was estimated."""
    drawn = f", {draws} draw{'s' if draws > 1 else ''}" if estimator in STOCHASTIC else ""
    return "Empirical" if estimator == "empirical" else "True", f"{estimator}{drawn}"


def named_rows(rows: Sequence[tuple[str, str]]) -> list[str]:
    """Lines with their names in a column; a name longer than `LONGEST_NAME` has a line of its own before its row."""
    width = max(len(name) for name, _ in rows if len(name) <= LONGEST_NAME)
    lines = []
    for name, row in rows:
        if len(name) > width:
            lines.append(name)
        lines.append(f"{name if len(name) <= width else '':{width}}  {row}")
    return lines


def why(engines: Mapping[str, str], reasons: Mapping[str, str]) -> list[str]:
    """A line for each reason not to take the first choice of engine, with its layers."""
    alike: dict[tuple[str, str], list[str]] = {}
    for layer, reason in reasons.items():
        alike.setdefault((engines[layer], reason), []).append(layer)
    return [
        f"by {engine}: {', '.join(layers[:5])}{f' and {len(layers) - 5} more' if len(layers) > 5 else ''}: {reason}"
        for (engine, reason), layers in alike.items()
    ]
