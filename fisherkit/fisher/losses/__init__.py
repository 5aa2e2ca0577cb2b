"""Losses: for the time being the protocol of old.py; likelihood.py, find.py and the rest are the one to come."""

from .old import LOSSES, BinaryCrossEntropy, CrossEntropy, Loss, SquaredError, find_loss

__all__ = ["LOSSES", "BinaryCrossEntropy", "CrossEntropy", "Loss", "SquaredError", "find_loss"]
