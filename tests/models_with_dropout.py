"""A small network with dropout: `models_with_dropout:build`."""

from torch import nn


def build(classes: int, channels: int, image_size: int) -> nn.Module:
    side = (image_size - 3) // 2 + 1
    layers = (nn.Conv2d(channels, 2, 3, stride=2), nn.ReLU(), nn.Dropout(0.3), nn.Flatten())
    return nn.Sequential(*layers, nn.Linear(2 * side**2, classes))
