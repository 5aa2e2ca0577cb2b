"""Architectures as they are written in practice, each small enough for a dense reference in float64.

`rest` lists the layers that have no closed form or do not fit one, with the beginning of the reason; `slow` is how
their per-image norms are found instead.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

N = 4  # images: one more than the survey looks at
NO_FORM, OUTSIDE = "there is no closed form", "its parameters are used outside its own forward"


@dataclass(frozen=True)
class Architecture:
    """One model, what it is called on, and how each layer is expected to be measured."""

    name: str
    make: Callable[[], nn.Module]
    inputs: Callable[[], Any]
    labels: Callable[[], Tensor]
    loss: str = "cross_entropy"
    rest: dict[str, str] = field(default_factory=dict)
    slow: str = "vmap"

    def build(self) -> tuple[nn.Module, Any, Tensor]:
        """Seeded model in float64, in evaluation mode with statistics of its own; inputs; labels."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = self.make().double().eval()
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.num_batches_tracked.fill_(1)
                    module.running_mean.normal_(0, 0.3)
                    module.running_var.uniform_(0.5, 2)
                    module.weight.data.uniform_(0.5, 1.5)
            return model, self.inputs(), self.labels()


def images(*shape: int) -> Callable[[], Tensor]:
    return lambda: torch.randn(N, *shape, dtype=torch.float64)


def tokens(length: int, vocabulary: int) -> Callable[[], Tensor]:
    return lambda: torch.randint(1, vocabulary, (N, length))


def classes(count: int, *positions: int) -> Callable[[], Tensor]:
    return lambda: torch.randint(0, count, (N, *positions))


class BasicBlock(nn.Module):
    """torchvision's, with its in-place ReLU and `out += identity`."""

    def __init__(self, inplanes: int, planes: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inplanes, planes, 3, stride, 1, bias=False), nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2, self.bn2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False), nn.BatchNorm2d(planes)
        self.downsample = None
        if stride > 1 or inplanes != planes:
            self.downsample = nn.Sequential(nn.Conv2d(inplanes, planes, 1, stride, bias=False), nn.BatchNorm2d(planes))

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += identity
        return self.relu(out)


class Bottleneck(nn.Module):
    """torchvision's (ResNeXt with groups > 1)."""

    def __init__(self, inplanes: int, width: int, planes: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inplanes, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, planes, 1, bias=False), nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = nn.Sequential(nn.Conv2d(inplanes, planes, 1, stride, bias=False), nn.BatchNorm2d(planes))

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += self.downsample(x)
        return self.relu(out)


class ResNet(nn.Module):
    """Stem, pooling, two blocks, linear."""

    def __init__(self, *blocks: nn.Module, features: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(2, 4, 3, 2, 1, bias=False), nn.BatchNorm2d(4)
        self.relu, self.maxpool = nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
        self.layer = nn.Sequential(*blocks)
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d((1, 1)), nn.Linear(features, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.fc(torch.flatten(self.avgpool(self.layer(x)), 1))


class SqueezeExcitation(nn.Module):
    """torchvision's: two 1 x 1 convolutions on the pooled map scale its channels."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1, self.fc2 = nn.Conv2d(channels, squeezed, 1), nn.Conv2d(squeezed, channels, 1)
        self.activation, self.scale_activation = nn.ReLU(), nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        scale = self.scale_activation(self.fc2(self.activation(self.fc1(self.avgpool(x)))))
        return scale * x


class InvertedResidual(nn.Module):
    """MobileNet v2 and v3: expand, depthwise, squeeze-and-excitation, project."""

    def __init__(self, channels: int, hidden: int, activation: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.block = nn.Sequential(
            *(nn.Conv2d(channels, hidden, 1, bias=False), nn.BatchNorm2d(hidden), activation(inplace=True)),
            nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=False),
            *(nn.BatchNorm2d(hidden), activation(inplace=True), SqueezeExcitation(hidden, 4)),
            *(nn.Conv2d(hidden, channels, 1, bias=False), nn.BatchNorm2d(channels)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x)


def mobilenet() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(2, 4, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(4), nn.Hardswish(inplace=True)),
        InvertedResidual(4, 6, nn.ReLU6),
        InvertedResidual(4, 6, nn.Hardswish),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5), nn.Hardswish(inplace=True)),
        *(nn.Dropout(0.2, inplace=True), nn.Linear(5, 3)),
    )


class DenseNet(nn.Module):
    """Two dense layers (norm, ReLU, 1 x 1, norm, ReLU, 3 x 3 on everything before), a transition, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(2, 4, 3, padding=1, bias=False)
        self.dense = nn.ModuleList(
            nn.Sequential(
                *(nn.BatchNorm2d(4 + 2 * i), nn.ReLU(inplace=True), nn.Conv2d(4 + 2 * i, 4, 1, bias=False)),
                *(nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Conv2d(4, 2, 3, padding=1, bias=False)),
            )
            for i in range(2)
        )
        self.transition = nn.Sequential(
            nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Conv2d(8, 4, 1, bias=False), nn.AvgPool2d(2)
        )
        self.norm, self.classifier = nn.BatchNorm2d(4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        features = [self.conv0(x)]
        for layer in self.dense:
            features.append(layer(torch.cat(features, 1)))
        x = F.relu(self.norm(self.transition(torch.cat(features, 1))), inplace=True)
        return self.classifier(F.adaptive_avg_pool2d(x, (1, 1)).flatten(1))


class UNet(nn.Module):
    """One level down and up, a skip connection, a class for every pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.GroupNorm(1, 3), nn.ReLU(inplace=True))
        self.middle = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True))
        self.up = nn.ConvTranspose2d(4, 3, 2, stride=2)
        self.join = nn.Sequential(nn.Conv2d(6, 3, 3, padding=1), nn.ReLU(inplace=True))
        self.head = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.down(x)
        return self.head(self.join(torch.cat([skip, self.up(self.middle(skip))], 1)))


class Recurrent(nn.Module):
    """Tokens, a recurrent network of two layers with dropout between them, a class."""

    def __init__(self, kind: type[nn.RNNBase], *, bidirectional: bool = False) -> None:
        super().__init__()
        self.embed = nn.Embedding(6, 3, padding_idx=0)
        self.rnn = kind(3, 3, num_layers=2, dropout=0.5, batch_first=True, bidirectional=bidirectional)
        self.out = nn.Linear(6 if bidirectional else 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(self.embed(x))[0][:, -1])


class UnrolledCell(nn.Module):
    """A cell called once for each position, on rows that are the images."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.mix, self.out = nn.GRUCell(3, 4), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), 4)
        for t in range(x.shape[1]):
            h = torch.tanh(self.mix(self.cell(x[:, t], h)))
        return self.out(h)


class SelfAttention(nn.Module):
    """Fused qkv Linear and scaled_dot_product_attention, as timm writes it."""

    def __init__(self, width: int, heads: int, *, causal: bool = False) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.heads, self.causal = heads, causal

    def forward(self, x: Tensor) -> Tensor:
        n, t, c = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        x = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.proj(x.transpose(1, 2).reshape(n, t, c))


class TransformerBlock(nn.Module):
    def __init__(self, width: int, heads: int, *, causal: bool = False) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads, causal=causal)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class VisionTransformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(2, 4, 2, stride=2)
        self.token, self.position = nn.Parameter(torch.randn(1, 1, 4)), nn.Parameter(torch.randn(1, 5, 4))
        self.blocks = nn.Sequential(TransformerBlock(4, 2), TransformerBlock(4, 2))
        self.norm, self.head = nn.LayerNorm(4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.position
        return self.head(self.norm(self.blocks(x))[:, 0])


class Encoder(nn.Module):
    """nn.TransformerEncoder with padding, which has a fast path of its own in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(6, 4, padding_idx=0)
        layer = nn.TransformerEncoderLayer(4, 2, 6, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.out = nn.Linear(4, 3)

    def forward(self, ids: Tensor, padded: Tensor) -> Tensor:
        return self.out(self.encoder(self.embed(ids), src_key_padding_mask=padded).mean(1))


def padded_tokens() -> dict[str, Tensor]:
    ids, padded = torch.randint(1, 6, (N, 4)), torch.zeros(N, 4, dtype=torch.bool)
    padded[1, 3] = padded[2, 2] = padded[2, 3] = True
    return {"ids": ids.masked_fill(padded, 0), "padded": padded}


class GPT(nn.Module):
    """A causal language model whose head is its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(5, 4), nn.Embedding(3, 4)
        self.blocks = nn.Sequential(TransformerBlock(4, 2, causal=True))
        self.norm, self.head = nn.LayerNorm(4), nn.Linear(4, 5, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.tokens(x) + self.places(torch.arange(x.shape[1], device=x.device))
        return self.head(self.norm(self.blocks(x)))


class ConvNeXtBlock(nn.Module):
    """Depthwise 7 x 7, LayerNorm and Linear on channels last, layer scale."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 6), nn.Linear(6, width)
        self.gamma = nn.Parameter(torch.full((width,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        y = self.dwconv(x).permute(0, 2, 3, 1)
        y = self.gamma * self.down(F.gelu(self.up(self.norm(y))))
        return x + y.permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block = nn.Conv2d(2, 3, 2, stride=2), ConvNeXtBlock(3)
        self.norm, self.head = nn.LayerNorm(3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.block(self.stem(x)).mean((2, 3))))


class Mixer(nn.Module):
    """MLP-Mixer: one Linear over positions, one over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.across, self.within = nn.LayerNorm(3), nn.Linear(4, 4), nn.Linear(3, 3)
        self.head = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.across(self.norm(x).transpose(1, 2)).transpose(1, 2)
        return self.head((x + F.gelu(self.within(x))).mean(1))


class Mixture(nn.Module):
    """Each image goes to the expert that its gate prefers: a path that depends on the data."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(4, 3)
        self.gate.weight.data = torch.eye(3, 4)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3)) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        weights = self.gate(x).softmax(1)
        best = weights.argmax(1)
        out = x.new_zeros(len(x), 3)
        for i, expert in enumerate(self.experts):
            chosen = best == i
            if chosen.any():
                out[chosen] = weights[chosen, i, None] * expert(x[chosen])
        return out


def routed() -> Tensor:
    """For experts 0, 1, 0 and, beyond the images that the survey sees, 2."""
    return torch.randn(N, 4, dtype=torch.float64) / 10 + 3 * torch.eye(4, dtype=torch.float64)[[0, 1, 0, 2]]


class Fourier(nn.Module):
    """A Fourier layer with complex weights, as neural operators have them."""

    def __init__(self) -> None:
        super().__init__()
        self.lift, self.out = nn.Linear(1, 3), nn.Linear(3, 2)
        self.weight = nn.Parameter(torch.randn(3, 3, 2, dtype=torch.cdouble))

    def forward(self, x: Tensor) -> Tensor:
        x = self.lift(x).transpose(1, 2)
        modes = torch.fft.rfft(x)[..., :2]
        x = torch.fft.irfft(torch.einsum("nim,iom->nom", modes, self.weight), n=x.shape[-1]) + x
        return self.out(torch.tanh(x).transpose(1, 2)).flatten(1)


class LowRank(nn.Module):
    """A frozen Linear with a trained low-rank update beside it (LoRA)."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down, self.up = nn.Linear(base.in_features, 2, bias=False), nn.Linear(2, base.out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + 2.0 * self.up(self.down(x))


class Hyper(nn.Module):
    """A network that makes the weights of another, one set for each image."""

    def __init__(self) -> None:
        super().__init__()
        self.weights, self.out = nn.Linear(4, 12), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.tanh(torch.bmm(self.weights(x).reshape(-1, 3, 4), x[..., None]).squeeze(2)))


class Energy(nn.Module):
    """The forward asks for gradients in its own input (forces of an energy): leaves that are not parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.energy, self.out = nn.Linear(3, 4), nn.Linear(4, 1), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        force = torch.autograd.grad(self.energy(torch.tanh(self.first(x))).sum(), x, create_graph=True)[0]
        return self.out(force)


class Adversarial(nn.Module):
    """Marks its input as requiring a gradient, and does nothing with it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.out = nn.Linear(3, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.relu_(self.first(x.clone().requires_grad_())).sum(1))


ARCHITECTURES = [
    Architecture(
        "resnet_basic",
        lambda: ResNet(BasicBlock(4, 4), BasicBlock(4, 5, 2), features=5),
        images(2, 9, 9),
        classes(3),
    ),
    Architecture(
        "resnet_bottleneck",
        lambda: ResNet(Bottleneck(4, 2, 5), Bottleneck(5, 4, 6, stride=2, groups=2), features=6),
        images(2, 9, 9),
        classes(3),
    ),
    Architecture("mobilenet", mobilenet, images(2, 6, 6), classes(3)),
    Architecture("densenet", DenseNet, images(2, 4, 4), classes(3)),
    Architecture("unet", UNet, images(1, 4, 4), classes(3, 4, 4), "pixel_cross_entropy"),
    Architecture("lstm", lambda: Recurrent(nn.LSTM), tokens(4, 6), classes(3), rest={"rnn": NO_FORM}, slow="loop"),
    Architecture(
        "gru_bidirectional",
        lambda: Recurrent(nn.GRU, bidirectional=True),
        tokens(4, 6),
        classes(3),
        rest={"rnn": NO_FORM},
        slow="loop",
    ),
    Architecture(
        "recurrent_cell",
        UnrolledCell,
        images(3, 3),
        classes(3),
        rest={"cell": NO_FORM, "mix": "it is called 3 times"},
    ),
    Architecture("vision_transformer", VisionTransformer, images(2, 4, 4), classes(3)),
    Architecture("transformer_encoder", Encoder, padded_tokens, classes(3)),
    Architecture(
        "gpt",
        GPT,
        tokens(3, 5),
        classes(5, 3),
        "token_cross_entropy",
        rest={"tokens": "its weights are tied", "places": "the rows of its input are not the images"},
    ),
    Architecture("convnext", ConvNeXt, images(2, 4, 4), classes(3), rest={"block": NO_FORM}),
    Architecture("mlp_mixer", Mixer, images(4, 3), classes(3)),
    Architecture(
        "mixture_of_experts",
        Mixture,
        routed,
        classes(3),
        rest={
            **dict.fromkeys(["experts.0.0", "experts.0.2"], "it is called with 2 rows for 3 images"),
            **dict.fromkeys(["experts.1.0", "experts.1.2"], "it is called with 1 rows for 3 images"),
            **dict.fromkeys(["experts.2.0", "experts.2.2"], "the outputs for the first images do not depend on it"),
        },
        slow="loop",
    ),
    Architecture("fourier_operator", Fourier, images(4, 1), images(8), "squared_error", rest={"(model)": "complex"}),
    Architecture(
        "low_rank_adapter",
        lambda: nn.Sequential(LowRank(nn.Linear(4, 4)), nn.Tanh(), LowRank(nn.Linear(4, 3))),
        images(4),
        classes(3),
    ),
    Architecture("hypernetwork", Hyper, images(4), classes(3)),
    Architecture(
        "forces",
        Energy,
        images(3),
        classes(3),
        rest={"first": "its parameters are also used outside its own forward", "energy": OUTSIDE},
        slow="loop",
    ),
    Architecture("input_requires_grad", Adversarial, images(5, 3), classes(3)),
]
