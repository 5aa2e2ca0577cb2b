"""The result of a measurement: a frozen value that carries everything a reader must know about the numbers."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .vectors import STOCHASTIC

Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FisherTrace:
    """Per-layer trace of the Fisher information with its standard errors.

    Sum over the layer's parameters, mean over images; natural logarithm, so nats^2.
    `stderr` is the standard error of the trace as an estimate over the images' distribution (it contains the
    noise of the draws); `stderr_draws` is the part due to the draws alone, which is what remains when the
    images are the whole question; NaN where it cannot be told (one image; fewer than 2 draws).
    """

    layers: tuple[str, ...]
    trace: Values  # [layers]
    stderr: Values  # [layers]
    stderr_draws: Values  # [layers]
    total: float
    total_stderr: float
    total_stderr_draws: float
    images: int
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

    def __str__(self) -> str:
        return "\n".join([self._title(), *self._table(), *(f"note: {note}" for note in self.notes)])

    def _title(self) -> str:
        kind = "Empirical" if self.estimator == "empirical" else "True"
        drawn = f", {self.draws} draw{'s' if self.draws > 1 else ''}" if self.estimator in STOCHASTIC else ""
        return (
            f"{kind} Fisher trace, {self.estimator}{drawn}, {self.images} images, {self.loss}, "
            f"batchnorm={self.batchnorm}, {self.dtype}, seed {self.seed} (nats²; ± standard error)"
        )

    def _table(self) -> list[str]:
        width = max(5, *(len(name) for name in self.layers))
        lines = [f"{'layer':{width}}  {'trace':>11}  {'±':>9}  {'share':>6}  {'parameters':>10}  engine"]
        for name, trace, stderr, share in zip(self.layers, self.trace, self.stderr, self.share, strict=True):
            size = self.parameters[name]
            lines.append(
                f"{name:{width}}  {trace:11.4g}  {stderr:9.2g}  {share:6.1%}  {size:10,}  {self.engines[name]}"
            )
        size = sum(self.parameters.values())
        return [
            *lines,
            f"{'total':{width}}  {self.total:11.4g}  {self.total_stderr:9.2g}  {1:6.0%}  {size:10,}",
        ]
