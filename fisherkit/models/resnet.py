"""ResNet-18 in the form for small images: a 3x3 stem without pooling (He et al. 2016, as commonly run on CIFAR)."""

from jaxtyping import Float
from torch import Tensor, nn

from fisherkit.models.initialise import kaiming_convolutions


class BasicBlock(nn.Module):
    """relu(bn2(conv2(relu(bn1(conv1(x))))) + shortcut(x)); the shortcut is 1x1 where the shape changes."""

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = _shortcut(inputs, outputs, stride=stride)
        self.relu2 = nn.ReLU()

    def forward(
        self, features: Float[Tensor, "images inputs height width"]
    ) -> Float[Tensor, "images outputs new_height new_width"]:
        """The block's features."""
        residual = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(features)))))
        return self.relu2(residual + self.shortcut(features))  # type: ignore[no-any-return]


def _shortcut(inputs: int, outputs: int, *, stride: int) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs))


class ResNet18(nn.Module):
    """Four stages of two blocks, of width, 2 width, 4 width, 8 width channels.

    11,173,962 parameters at width 64, 3 channels and 10 classes. Parameters are named as in the common
    CIFAR implementations (conv1, layer1.0.conv1, ..., linear), so that their checkpoints load.
    """

    def __init__(self, *, classes: int, channels: int, width: int = 64) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.layer1 = _stage(width, width, stride=1)
        self.layer2 = _stage(width, 2 * width, stride=2)
        self.layer3 = _stage(2 * width, 4 * width, stride=2)
        self.layer4 = _stage(4 * width, 8 * width, stride=2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(8 * width, classes)
        kaiming_convolutions(*(module for module in self.modules() if isinstance(module, nn.Conv2d)))

    def forward(self, images: Float[Tensor, "images channels height width"]) -> Float[Tensor, "images classes"]:
        """Logits."""
        features = self.relu1(self.bn1(self.conv1(images)))
        features = self.layer4(self.layer3(self.layer2(self.layer1(features))))
        return self.linear(self.flatten(self.pool(features)))  # type: ignore[no-any-return]


def _stage(inputs: int, outputs: int, *, stride: int) -> nn.Sequential:
    return nn.Sequential(BasicBlock(inputs, outputs, stride=stride), BasicBlock(outputs, outputs, stride=1))
