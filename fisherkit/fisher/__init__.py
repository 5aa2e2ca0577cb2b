"""Fisher information of each layer's parameters: estimators (which vectors) times engines (how norms are found)."""

from .estimate import fisher_trace, fisher_traces
from .layers import Layer, trainable_layers
from .losses import LOSSES, CrossEntropy
from .plan import ENGINES
from .result import FisherTrace
from .spectrum import fisher_spectrum
from .spectrum_result import FisherSpectrum
from .undisturbed import BATCHNORM_POLICIES
from .vectors import ESTIMATORS
from .verify import Verification, verify

__all__ = [
    "BATCHNORM_POLICIES",
    "ENGINES",
    "ESTIMATORS",
    "LOSSES",
    "CrossEntropy",
    "FisherSpectrum",
    "FisherTrace",
    "Layer",
    "Verification",
    "fisher_spectrum",
    "fisher_trace",
    "fisher_traces",
    "trainable_layers",
    "verify",
]
