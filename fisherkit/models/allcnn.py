"""The All-CNN variant of the critical-periods papers (after Springenberg et al. 2015)."""

from collections import OrderedDict

from torch import nn

from fisherkit.models.initialise import kaiming_convolutions


def allcnn(*, classes: int, channels: int, width: int = 96, last_bn_relu: bool = False) -> nn.Sequential:
    """Nine convolutions without a fully connected layer, then the average over positions.

    conv w - conv w - conv 2w stride 2 - conv 2w - conv 2w - conv 2w stride 2 - conv 2w - conv1x1 2w -
    conv1x1 classes - average pool, each conv 3x3 with BN and ReLU; 1,617,312 convolution weights at width 96,
    3 channels and 10 classes. The last convolution has a bias; with `last_bn_relu`, the paper read literally,
    BN and ReLU instead.
    """
    outputs = [width, width, *[2 * width] * 6]
    strides = [1, 1, 2, 1, 1, 2, 1, 1]
    kernels = [3, 3, 3, 3, 3, 3, 3, 1]
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    inputs = channels
    for number, (out, stride, kernel) in enumerate(zip(outputs, strides, kernels, strict=True), start=1):
        convolution = nn.Conv2d(inputs, out, kernel, stride=stride, padding=kernel // 2, bias=False)
        _append(layers, number, convolution, bn_relu=True)
        inputs = out
    _append(layers, 9, nn.Conv2d(inputs, classes, 1, bias=not last_bn_relu), bn_relu=last_bn_relu)
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    return nn.Sequential(layers)


def _append(layers: OrderedDict[str, nn.Module], number: int, convolution: nn.Conv2d, *, bn_relu: bool) -> None:
    """One numbered convolution, with BN and ReLU and their initialisation or alone, with PyTorch's own."""
    layers[f"conv{number}"] = convolution
    if bn_relu:
        kaiming_convolutions(convolution)
        layers[f"bn{number}"] = nn.BatchNorm2d(convolution.out_channels)
        layers[f"relu{number}"] = nn.ReLU()
