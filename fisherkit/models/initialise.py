"""Initial weights."""

from torch import nn


def kaiming_convolutions(*convolutions: nn.Conv2d) -> None:
    """He et al. 2015: normal, variance 2 / (out_channels kernel_height kernel_width), for a ReLU after it."""
    for convolution in convolutions:
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")


def kaiming_linear(linear: nn.Linear) -> None:
    """He et al. 2015: normal, variance 2 / in_features, for a ReLU after it; bias 0."""
    nn.init.kaiming_normal_(linear.weight, mode="fan_in", nonlinearity="relu")
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)
