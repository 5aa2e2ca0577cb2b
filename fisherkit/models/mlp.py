"""Fully connected networks."""

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from fisherkit.models.initialise import kaiming_linear

PAPER_WIDTHS = (2500, 2000, 1500, 1000, 500)


def mlp(
    *,
    classes: int,
    channels: int,
    image_size: int,
    width: Sequence[int] = PAPER_WIDTHS,
    batchnorm: bool = True,
) -> nn.Sequential:
    """Hidden layers of the given widths, each with BN (in place of a bias) and ReLU, and a linear output.

    The default is the MNIST network of Achille, Rovere, Soatto (ICLR 2019).
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    inputs = channels * image_size**2
    for number, outputs in enumerate(width, start=1):
        hidden = nn.Linear(inputs, outputs, bias=not batchnorm)
        kaiming_linear(hidden)
        layers[f"linear{number}"] = hidden
        if batchnorm:
            layers[f"bn{number}"] = nn.BatchNorm1d(outputs)
        layers[f"relu{number}"] = nn.ReLU()
        inputs = outputs
    layers[f"linear{len(width) + 1}"] = nn.Linear(inputs, classes)
    return nn.Sequential(layers)


def linear(*, classes: int, channels: int, image_size: int) -> nn.Sequential:
    """Logistic regression on the pixels."""
    layers = OrderedDict(flatten=nn.Flatten(), linear=nn.Linear(channels * image_size**2, classes))
    return nn.Sequential(layers)
