"""Losses: what an estimator needs of -log p(y | outputs); likelihood.py has the protocol, find.py the choice."""

from .cross_entropy import CrossEntropy
from .find import LOSSES, find_loss
from .independent import BinaryCrossEntropy, SquaredError
from .likelihood import Likelihood, Loss

__all__ = ["LOSSES", "BinaryCrossEntropy", "CrossEntropy", "Likelihood", "Loss", "SquaredError", "find_loss"]
