"""How a spectrum lies in a run file: a variable [time, layer] for each eigenvalue, so that every tool can open it."""

from typing import Any

import numpy as np

from fisherkit.fisher import FisherSpectrum
from fisherkit.recording.layout import EIGENVALUE


def spectrum_variables(spectrum: FisherSpectrum) -> dict[str, np.ndarray]:
    """The variables of one row, each [layer]."""
    return {
        **{f"{EIGENVALUE}{index + 1}": spectrum.eigenvalues[:, index] for index in range(spectrum.k)},
        "fisher_spectrum_trace": spectrum.trace,
        "fisher_effective_rank": spectrum.effective_rank,
        "fisher_effective_rank_corrected": spectrum.effective_rank_corrected,
        "fisher_effective_rank_stderr": spectrum.effective_rank_stderr,
    }


def spectrum_facts(spectrum: FisherSpectrum) -> dict[str, Any]:
    """How it was measured, JSON-able."""
    return {
        "k": spectrum.k,
        "images": spectrum.images,
        "vectors": spectrum.vectors,
        "estimator": spectrum.estimator,
        "draws": spectrum.draws,
        "loss": spectrum.loss,
        "seed": spectrum.seed,
        "engines": dict(spectrum.engines),
    }
