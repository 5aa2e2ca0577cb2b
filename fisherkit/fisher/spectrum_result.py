"""The result of `fisher_spectrum`: a frozen value that carries everything a reader must know about the numbers."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from .result import Values, kind_of, named_rows, why


@dataclass(frozen=True, eq=False)
class FisherSpectrum:
    """The leading eigenvalues of each layer's Fisher matrix on a sample of images, and its effective rank.

    F_l = 1/N sum_i sum_c u_ic u_ic^T, the score vectors u_ic = J_l^T s_ic of the N images in the layer's parameters.
    Eigenvalues, `trace` and `effective_rank` = (tr F_l)^2 / ||F_l||^2 (the participation ratio: r equal eigenvalues
    give r) are exact for this sample; natural logarithm: nats^2. As estimates over the images' distribution the
    largest eigenvalues are biased upwards and the effective rank downwards, since F_l of N images has at most
    N * columns eigenvalues; more images show by how much. `effective_rank_corrected` compares different images only
    and so does not have that bias, whatever N and for drawn vectors too; `effective_rank_stderr` is its jackknife
    standard error (`corrected_rank` in spectrum_values.py has the formulas); NaN where they cannot be told.
    """

    layers: tuple[str, ...]
    eigenvalues: Values  # [layers, k], descending, zero past the rank
    trace: Values  # [layers]
    effective_rank: Values  # [layers]; 0 where the trace is 0
    effective_rank_corrected: Values  # [layers]
    effective_rank_stderr: Values  # [layers], of the corrected one
    images: int
    vectors: int  # score vectors of each layer: the most its rank can be
    draws: int
    engines: Mapping[str, str]  # layer -> engine
    parameters: Mapping[str, int]  # layer -> number of trainable parameters
    frozen_parameters: int  # parameters with requires_grad=False, which are not measured
    estimator: str
    loss: str
    dtype: str
    device: str
    seed: int
    passes: int  # over the images: as many as groups of layers whose score vectors fit into max_memory together
    batch_size: int  # images in a pass
    reasons: Mapping[str, str] = field(default_factory=dict)  # layer -> why not by the first choice of engine
    notes: tuple[str, ...] = ()

    def __getitem__(self, layer: str) -> Values:
        """The eigenvalues of one layer."""
        if layer not in self.layers:
            raise KeyError(f"no layer {layer!r}; the layers are {', '.join(self.layers)}")
        own: Values = self.eigenvalues[self.layers.index(layer)]
        return own

    @property
    def k(self) -> int:
        """How many eigenvalues of each layer there are."""
        return int(self.eigenvalues.shape[1])

    @property
    def top(self) -> Values:
        """The largest eigenvalue of each layer."""
        largest: Values = self.eigenvalues[:, 0]
        return largest

    def share_of_top(self, k: int) -> Values:
        """The share of each layer's trace in its k largest eigenvalues; NaN where the trace is 0.

        Raises:
            ValueError: there are not so many.
        """
        if not 1 <= k <= self.k:
            raise ValueError(f"k must be from 1 to {self.k}, the eigenvalues that were computed; got {k!r}.")
        sums, unknown = self.eigenvalues[:, :k].sum(1), np.full(len(self.layers), np.nan)
        shares: Values = np.divide(sums, self.trace, out=unknown, where=self.trace > 0)
        return shares

    def __str__(self) -> str:
        notes = (f"note: {note}" for note in self.notes)
        return "\n".join([self._title(), *self._table(), *why(self.engines, self.reasons), *notes])

    def _title(self) -> str:
        kind, how = kind_of(self.estimator, self.draws)
        return (
            f"{kind} Fisher spectrum, {how}, {self.images} images, {self.vectors:,} score vectors, "
            f"{self.loss}, {self.dtype}, seed {self.seed} (nats²)"
        )

    def _table(self) -> list[str]:
        head = (
            f"{'trace':>10}  {'largest':>10}  {f'top {self.k}':>6}  {'rank':>7}  {'corrected':>9}  {'±':>7}  "
            f"{'parameters':>10}  engine"
        )
        return named_rows([("layer", head), *((name, self._row(index)) for index, name in enumerate(self.layers))])

    def _row(self, index: int) -> str:
        name = self.layers[index]
        return (
            f"{self.trace[index]:10.4g}  {self.top[index]:10.4g}  {self.share_of_top(self.k)[index]:6.1%}  "
            f"{self.effective_rank[index]:7.4g}  {self.effective_rank_corrected[index]:9.4g}  "
            f"{self.effective_rank_stderr[index]:7.2g}  {self.parameters[name]:10,}  {self.engines[name]}"
        )
