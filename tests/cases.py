"""Architectures small enough for a dense reference: id -> (model in float64, inputs, loss)."""

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from attention_models import (
    Crossing,
    Decoder,
    Encoder,
    Foremost,
    InPlace,
    Masked,
    OverTheBatch,
    ProjectedTwice,
    SelfAttention,
    causal,
    frozen_attention,
)
from torch import Tensor, nn


@dataclass(frozen=True)
class Case:
    """One architecture; `closed` says whether every layer has a closed form that applies."""

    name: str
    make: Callable[[], nn.Module]
    inputs: Callable[[], Any]
    loss: str = "cross_entropy"
    closed: bool = True
    backpack: bool = False

    def build(self) -> tuple[nn.Module, Any]:
        """Seeded model in float64 and evaluation-ready statistics, and its inputs."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = self.make().double()
            for module in model.modules():
                if getattr(module, "running_mean", None) is not None:
                    module.running_mean.normal_()
                    module.running_var.uniform_(0.5, 2)
                if "Norm" in type(module).__name__:
                    for parameter in module.parameters(recurse=False):
                        parameter.data.uniform_(0.5, 1.5)
            return model, self.inputs()


def images(*shape: int, n: int = 5) -> Callable[[], Tensor]:
    return lambda: torch.randn(n, *shape, dtype=torch.float64)


def tokens(length: int, vocabulary: int, n: int = 5) -> Callable[[], Tensor]:
    return lambda: torch.randint(0, vocabulary, (n, length))


class Residual(nn.Module):
    """conv-bn-relu-conv-bn + shortcut; in_place as torchvision writes it."""

    def __init__(self, in_place: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1, bias=False)
        self.bn1, self.bn2, self.bn3 = nn.BatchNorm2d(4), nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.conv1 = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.relu = nn.ReLU(inplace=in_place)
        self.fc = nn.Linear(4, 3)
        self.in_place = in_place

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.stem(x)))
        out = self.bn3(self.conv2(self.relu(self.bn2(self.conv1(x)))))
        if self.in_place:
            out += x
        else:
            out = out + x
        return self.fc(self.relu(out).mean((2, 3)))


class InPlaceSequence(nn.Module):
    """A Linear over positions (its output is a view) followed by an in-place activation, first and later."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.out = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.relu_(self.second(F.relu_(self.first(x)))).sum(1))


class Tied(nn.Module):
    """Embedding and decoder share one matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix, self.decoder = nn.Embedding(6, 4), nn.Linear(4, 4), nn.Linear(4, 6, bias=False)
        self.decoder.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(torch.tanh(self.mix(self.embed(x).mean(1))))


class Twice(nn.Module):
    """One module called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.out = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.tanh(self.shared(torch.tanh(self.shared(x)))))


class Functional(nn.Module):
    """A weight used outside its module's forward, and one used both inside and outside."""

    def __init__(self) -> None:
        super().__init__()
        self.outside, self.both, self.out = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(F.linear(x, self.outside.weight, self.outside.bias))
        return self.out(torch.tanh(self.both(x)) + x @ self.both.weight)


class Bare(nn.Module):
    """Parameters that the model owns itself."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.fc, self.shift = nn.Parameter(torch.randn(4)), nn.Linear(4, 3), nn.Parameter(torch.randn(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x * self.scale) + self.shift


class Transformer(nn.Module):
    """Pre-norm block of Linear layers, LayerNorm, class token, position embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(3, 4)
        self.token, self.position = nn.Parameter(torch.randn(1, 1, 4)), nn.Parameter(torch.randn(1, 6, 4))
        self.norm1, self.norm2 = nn.LayerNorm(4), nn.LayerNorm(4)
        self.qkv, self.proj = nn.Linear(4, 12), nn.Linear(4, 4)
        self.up, self.down, self.out = nn.Linear(4, 8), nn.Linear(8, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(len(x), -1, -1), self.embed(x)], 1) + self.position
        q, k, v = self.qkv(self.norm1(x)).chunk(3, -1)
        x = x + self.proj(F.scaled_dot_product_attention(q, k, v))
        x = x + self.down(F.gelu(self.up(self.norm2(x))))
        return self.out(x[:, 0])


class Recurrent(nn.Module):
    """An LSTM: no closed form, no vmap rule."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.out = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.lstm(x)[0][:, -1])


class Dictionary(nn.Module):
    """Called by keyword, returns an object with .logits."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.fc = nn.Embedding(6, 4), nn.Linear(4, 3)

    def forward(self, input_ids: Tensor, mask: Tensor) -> Any:
        return SimpleNamespace(logits=self.fc((self.embed(input_ids) * mask[..., None]).sum(1)))


class Unused(nn.Module):
    """A layer that the outputs never see, and one behind detach()."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused, self.cut, self.out = (nn.Linear(4, 4) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.used(x) + self.cut(x).detach())


class Folded(nn.Module):
    """Frames folded into the batch: 2 rows an image."""

    def __init__(self) -> None:
        super().__init__()
        self.frame, self.out = nn.Linear(4, 4), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.tanh(self.frame(x.reshape(-1, 4))).reshape(len(x), 8))


class Dense(nn.Module):
    """Concatenation as in DenseNet."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(5, 3, 3, padding=1)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([x, torch.relu(self.conv1(x))], 1)
        return self.fc(torch.cat([x, torch.relu(self.conv2(x))], 1).mean((2, 3)))


class Hooked(nn.Module):
    """A user's forward hook changes the output of the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.out = nn.Linear(4, 4), nn.Linear(4, 3)
        self.fc.register_forward_hook(lambda module, args, output: 3 * output)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.tanh(self.fc(input=x)))


class Energy(nn.Module):
    """Outputs that are a gradient inside the forward: the weights enter the graph a second time."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.energy = nn.Linear(4, 3), nn.Linear(3, 5)

    def forward(self, x: Tensor) -> Tensor:
        z = torch.tanh(self.first(x))
        energy = F.softplus(self.energy(z)).sum()
        return torch.autograd.grad(energy, z, create_graph=True)[0] + z


class SequenceFirst(nn.Module):
    """[positions, images, features] inside, with as many positions as the survey looks at images."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm, self.out = nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 3)
        self.place = nn.Embedding(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x.transpose(0, 1)) + self.place(torch.arange(3, device=x.device))[:, None]
        return self.out(torch.tanh(self.norm(x)).mean(0))


class Upsampled(nn.Module):
    """A transposed convolution told the size of its output."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.out = nn.ConvTranspose2d(2, 3, 3, stride=2, padding=1), nn.Linear(3 * 6 * 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.tanh(self.up(x, output_size=[6, 8])).flatten(1))


class ByKeyword(nn.Module):
    """RMSNorm names its input x, every other layer input."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.out = nn.RMSNorm(4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(input=self.norm(x=x))


def patched() -> nn.Module:
    """A forward replaced on one instance, as adapters do."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3))
    first = model[0]
    first.forward = lambda x: 2 * F.linear(x, first.weight, first.bias)
    return model


def conv_net(*convolutions: nn.Module, features: int, classes: int = 3) -> Callable[[], nn.Module]:
    layers = [part for conv in convolutions for part in (conv, nn.Tanh())]
    return lambda: nn.Sequential(*layers, nn.Flatten(), nn.Linear(features, classes))


def instance_normed(norm: nn.Module) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(norm, nn.Tanh(), nn.Flatten(), nn.Linear(24, 3))


def frozen() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3))
    model[0].requires_grad_(False)
    model[2].weight.requires_grad_(False)
    model[4].bias.requires_grad_(False)
    return model


def weight_normed() -> nn.Module:
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
    return nn.Sequential(normed, nn.Tanh(), nn.Linear(4, 3))


HEADS = {"need_weights": True, "average_attn_weights": False}
CASES = [
    Case("mlp", lambda: nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)), images(4), backpack=True),
    Case("linear_no_bias", lambda: nn.Linear(4, 3, bias=False), images(4), backpack=True),
    Case("one_output", lambda: nn.Linear(4, 1), images(4), "binary_cross_entropy", backpack=True),
    Case("binary", lambda: nn.Sequential(nn.Linear(4, 3)), images(4), "binary_cross_entropy", backpack=True),
    Case("regression", lambda: nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)), images(4), "squared_error"),
    Case("sequence_linear", InPlaceSequence, images(5, 3)),
    Case("sequence_linear_gram", lambda: nn.Sequential(nn.Linear(9, 8), nn.Flatten(), nn.Linear(16, 3)), images(2, 9)),
    Case("conv2d", conv_net(nn.Conv2d(2, 3, 3), features=3 * 9), images(2, 5, 5), backpack=True),
    Case("conv2d_gram", conv_net(nn.Conv2d(8, 9, 3, padding=1), features=9 * 9), images(8, 3, 3), backpack=True),
    Case("conv2d_strided", conv_net(nn.Conv2d(2, 3, 3, stride=2, padding=1), features=27), images(2, 6, 5)),
    Case("conv2d_strided_gram", conv_net(nn.Conv2d(9, 9, 3, stride=2, padding=1), features=36), images(9, 4, 3)),
    Case("conv2d_dilated", conv_net(nn.Conv2d(2, 3, (3, 2), dilation=(2, 1)), features=3 * 6), images(2, 6, 4)),
    Case("conv2d_dilated_gram", conv_net(nn.Conv2d(9, 9, 2, dilation=2, padding=1), features=81), images(9, 3, 3)),
    Case("conv2d_grouped", conv_net(nn.Conv2d(4, 6, 3, groups=2, padding=1), features=96), images(4, 4, 4)),
    Case("conv2d_grouped_gram", conv_net(nn.Conv2d(16, 16, 3, groups=2), features=16), images(16, 3, 3)),
    Case("conv2d_depthwise", conv_net(nn.Conv2d(4, 4, 3, groups=4, padding=1), features=64), images(4, 4, 4)),
    Case("conv2d_same", conv_net(nn.Conv2d(2, 3, (3, 2), padding="same"), features=48), images(2, 4, 4)),
    Case(
        "conv2d_reflect", conv_net(nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), features=48), images(2, 4, 4)
    ),
    Case(
        "conv2d_circular_gram",
        conv_net(nn.Conv2d(24, 24, 3, padding=1, padding_mode="circular"), features=24 * 4),
        images(24, 2, 2),
    ),
    Case("conv1d", conv_net(nn.Conv1d(2, 3, 3, stride=2, padding=2), features=3 * 5), images(2, 7), backpack=True),
    Case("conv3d", conv_net(nn.Conv3d(2, 2, 2, padding=1, stride=2), features=2 * 8), images(2, 3, 3, 3)),
    Case("conv_transpose2d", conv_net(nn.ConvTranspose2d(2, 3, 3), features=3 * 25), images(2, 3, 3)),
    Case("conv_transpose2d_gram", conv_net(nn.ConvTranspose2d(16, 8, 3, padding=1), features=32), images(16, 2, 2)),
    Case(
        "conv_transpose2d_strided",
        conv_net(nn.ConvTranspose2d(2, 3, (3, 2), stride=2, padding=1, output_padding=1), features=3 * 42),
        images(2, 3, 4),
    ),
    Case(
        "conv_transpose2d_strided_gram",
        conv_net(nn.ConvTranspose2d(24, 12, 3, stride=2, padding=1, output_padding=1, bias=False), features=12 * 16),
        images(24, 2, 2),
    ),
    Case(
        "conv_transpose2d_grouped",
        conv_net(nn.ConvTranspose2d(4, 6, 3, groups=2, dilation=(2, 1)), features=6 * 35),
        images(4, 3, 3),
    ),
    Case(
        "conv_transpose2d_grouped_gram",
        conv_net(nn.ConvTranspose2d(16, 16, 2, groups=2, dilation=2, padding=1), features=16 * 4),
        images(16, 2, 2),
    ),
    Case(
        "conv_transpose2d_padded_away",
        conv_net(nn.ConvTranspose2d(2, 3, 3, stride=3, padding=2), features=3 * 25),
        images(2, 3, 3),
    ),
    Case("conv_transpose1d", conv_net(nn.ConvTranspose1d(2, 3, 4, stride=3, padding=1), features=33), images(2, 4)),
    Case(
        "conv_transpose3d",
        conv_net(nn.ConvTranspose3d(2, 2, 2, stride=(1, 2, 1), groups=2), features=2 * 36),
        images(2, 2, 2, 2),
    ),
    Case("conv_transpose_output_size", Upsampled, images(2, 3, 4)),
    Case("batch_norm1d", lambda: nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)), images(4)),
    Case("batch_norm_no_affine", lambda: nn.Sequential(nn.BatchNorm1d(4, affine=False), nn.Linear(4, 3)), images(4)),
    Case("residual", Residual, images(2, 5, 5), backpack=True),
    Case("residual_in_place", lambda: Residual(in_place=True), images(2, 5, 5)),
    Case("dense_concatenation", Dense, images(2, 4, 4)),
    Case("layer_norm", lambda: nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 3)), images(4)),
    Case("layer_norm_2d", lambda: nn.Sequential(nn.LayerNorm((3, 4)), nn.Flatten(), nn.Linear(24, 3)), images(2, 3, 4)),
    Case("layer_norm_no_bias", lambda: nn.Sequential(nn.LayerNorm(4, bias=False), nn.Linear(4, 3)), images(4)),
    Case("rms_norm", lambda: nn.Sequential(nn.RMSNorm(4), nn.Linear(4, 3)), images(4)),
    Case(
        "rms_norm_2d",
        lambda: nn.Sequential(nn.RMSNorm((3, 4), eps=0.1), nn.Flatten(), nn.Linear(24, 3)),
        images(2, 3, 4),
    ),
    Case("rms_norm_by_keyword", ByKeyword, images(4)),
    Case("group_norm", lambda: nn.Sequential(nn.GroupNorm(2, 4), nn.Linear(4, 3)), images(4)),
    Case("group_norm_1d", lambda: nn.Sequential(nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(12, 3)), images(4, 3)),
    Case("group_norm_2d", lambda: nn.Sequential(nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(24, 3)), images(4, 3, 2)),
    Case("instance_norm", instance_normed(nn.InstanceNorm2d(4, affine=True)), images(4, 3, 2)),
    Case(
        "instance_norm_tracked",
        instance_normed(nn.InstanceNorm2d(4, affine=True, track_running_stats=True)),
        images(4, 3, 2),
    ),
    Case("instance_norm_1d", instance_normed(nn.InstanceNorm1d(4, affine=True, eps=0.1)), images(4, 6)),
    Case("instance_norm_3d", instance_normed(nn.InstanceNorm3d(4, affine=True, bias=False)), images(4, 1, 3, 2)),
    Case("embedding", lambda: nn.Sequential(nn.Embedding(4, 3), nn.Flatten(), nn.Linear(18, 3)), tokens(6, 4)),
    Case(
        "embedding_padding",
        lambda: nn.Sequential(nn.Embedding(4, 3, padding_idx=1), nn.Flatten(), nn.Linear(18, 3)),
        tokens(6, 4),
    ),
    Case("transformer", Transformer, images(5, 3)),
    Case("multihead_attention", SelfAttention, images(5, 3)),
    Case("attention_weights", lambda: SelfAttention(call={"need_weights": True}), images(5, 3)),
    Case("attention_weights_of_heads", lambda: SelfAttention(call=HEADS), images(5, 3)),
    Case("attention_positions_first", lambda: SelfAttention(batch_first=False), images(5, 3)),
    Case("attention_positions_first_weights", lambda: SelfAttention(batch_first=False, call=HEADS), images(5, 3)),
    Case("attention_no_bias", lambda: SelfAttention(bias=False), images(5, 3)),
    Case("attention_zero", lambda: SelfAttention(add_zero_attn=True), images(5, 3)),
    Case("attention_causal", lambda: SelfAttention(call={"attn_mask": causal(5), "is_causal": True}), images(5, 3)),
    Case("attention_masked", Masked, images(5, 4)),
    Case("attention_masked_weights", lambda: Masked(need_weights=True), images(5, 4)),
    Case("attention_one_position", SelfAttention, images(1, 3)),
    Case("attention_foremost", Foremost, images(3, 4)),
    Case("attention_foremost_parts", lambda: Foremost(same=False), images(3, 4)),
    Case("attention_returns_weights", lambda: Foremost(weights=True), images(3, 4)),
    Case("attention_in_place", InPlace, images(5, 4)),
    Case("attention_in_place_weights", lambda: InPlace(need_weights=True), images(5, 4)),
    Case("attention_frozen", frozen_attention, images(5, 3)),
    Case("attention_bias_kv", lambda: SelfAttention(add_bias_kv=True), images(5, 3), closed=False),
    Case("attention_projected_twice", ProjectedTwice, images(5, 4), closed=False),
    Case("attention_unbatched", OverTheBatch, images(4, n=1), closed=False),
    Case("cross_attention", lambda: Crossing(same=True), images(5, 4)),
    Case("cross_attention_parts", lambda: Crossing(same=False, call={"need_weights": True}), images(5, 4)),
    Case("cross_attention_positions_first", lambda: Crossing(same=False, batch_first=False), images(5, 4)),
    Case("cross_attention_gram", lambda: Crossing(same=True, width=16), images(3, 16)),
    Case("cross_attention_sizes", lambda: Crossing(same=True, kdim=3, vdim=3), images(5, 4), closed=False),
    Case("transformer_encoder", lambda: Encoder(2), images(5, 4)),
    Case("transformer_encoder_positions_first", lambda: Encoder(1, batch_first=False), images(5, 4), closed=False),
    Case("transformer_encoder_padding", lambda: Encoder(1, padding=True), images(5, 4)),
    Case("transformer_decoder", Decoder, images(5, 4)),
    Case("lstm", Recurrent, images(5, 3), closed=False),
    Case("bare_parameters", Bare, images(4), closed=False),
    Case("tied_weights", Tied, tokens(3, 6), closed=False),
    Case("module_called_twice", Twice, images(4), closed=False),
    Case("functional_use", Functional, images(4), closed=False),
    Case("folded_batch", Folded, images(2, 4), closed=False),
    Case("weight_norm", weight_normed, images(4), closed=False),
    Case("partly_frozen", frozen, images(4), backpack=True),
    Case("unused_layer", Unused, images(4), closed=False),
    Case("sequence_first", SequenceFirst, images(3, 3, n=6), closed=False),
    Case("sequence_first_few", SequenceFirst, images(3, 3, n=3), closed=False),
    Case("user_hook", Hooked, images(4)),
    Case(
        "dictionary_batch",
        Dictionary,
        lambda: {"input_ids": torch.randint(0, 6, (5, 3)), "mask": torch.rand(5, 3, dtype=torch.float64)},
    ),
]
BY_NAME = {case.name: case for case in CASES}
