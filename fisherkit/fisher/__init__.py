"""Fisher information of each layer's parameters: estimators (which vectors) times engines (how norms are found)."""

from .estimate import fisher_trace
from .layers import Layer, trainable_layers
from .losses import LOSSES
from .plan import ENGINES
from .result import FisherTrace
from .undisturbed import BATCHNORM_POLICIES
from .vectors import ESTIMATORS
from .verify import Verification, verify

__all__ = [
    "BATCHNORM_POLICIES",
    "ENGINES",
    "ESTIMATORS",
    "LOSSES",
    "FisherTrace",
    "Layer",
    "Verification",
    "fisher_trace",
    "trainable_layers",
    "verify",
]
