"""Small models around nn.MultiheadAttention, one for each way of calling it."""

from typing import Any

import torch
from torch import Tensor, nn


def causal(length: int) -> Tensor:
    """True above the diagonal: not to be attended to."""
    return torch.ones(length, length, dtype=torch.bool).triu(1)


class SelfAttention(nn.Module):
    """Query, key and value are one tensor; `call` is passed on with every call."""

    def __init__(self, batch_first: bool = True, call: dict[str, Any] | None = None, **options: Any) -> None:
        super().__init__()
        self.call = {"need_weights": False, **(call or {})}
        self.embed, self.out = nn.Linear(3, 4), nn.Linear(4, 3)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=batch_first, **options)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = x if self.attention.batch_first else x.transpose(0, 1)
        return self.out(self.attention(x, x, x, **self.call)[0].mean(1 if self.attention.batch_first else 0))


class Foremost(nn.Module):
    """The graph starts at the attention; its weights may be among the outputs; called by keyword."""

    def __init__(self, weights: bool = False, same: bool = True) -> None:
        super().__init__()
        self.attention, self.weights, self.same = nn.MultiheadAttention(4, 2, batch_first=True), weights, same

    def forward(self, x: Tensor) -> Tensor:
        y, w = self.attention(query=x, key=x if self.same else 2 * x, value=x if self.same else x + 1)
        return torch.cat([y[:, 0], w[:, 0]], 1) if self.weights else y[:, 0]


class Masked(nn.Module):
    """A padding mask of each image and a float mask of positions."""

    def __init__(self, need_weights: bool = False) -> None:
        super().__init__()
        self.attention, self.out = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 3)
        self.need_weights = need_weights

    def forward(self, x: Tensor) -> Tensor:
        padding = x[:, :, 0] > 0.5
        padding[:, 0] = False
        bias = torch.linspace(-1, 1, x.shape[1] ** 2, dtype=x.dtype).view(x.shape[1], x.shape[1])
        masks = {"key_padding_mask": torch.zeros_like(x[:, :, 0]).masked_fill(padding, -torch.inf), "attn_mask": bias}
        return self.out(self.attention(x, x, x, need_weights=self.need_weights, **masks)[0].sum(1))


class Crossing(nn.Module):
    """Queries of one kind, keys and values of another, or of two others."""

    def __init__(self, same: bool, width: int = 4, call: dict[str, Any] | None = None, **options: Any) -> None:
        super().__init__()
        others = options.get("kdim", width)
        self.ask, self.tell = nn.Linear(width, width), nn.Linear(width, others)
        self.value = nn.Identity() if same else nn.Linear(width, others)
        self.attention = nn.MultiheadAttention(width, 2, **{"batch_first": True, **options})
        self.out, self.same, self.call = nn.Linear(width, 3), same, call or {"need_weights": False}

    def forward(self, x: Tensor) -> Tensor:
        queries, keys = self.ask(x[:, :2]), torch.tanh(self.tell(x))
        parts = [queries, keys, keys if self.same else self.value(x)]
        if self.attention.batch_first:
            return self.out(self.attention(*parts, **self.call)[0].sum(1))
        keys = parts[1].transpose(0, 1)
        value = keys if self.same else parts[2].transpose(0, 1)
        return self.out(self.attention(parts[0].transpose(0, 1), keys, value, **self.call)[0].sum(0))


class InPlace(nn.Module):
    """The attention's output, a view, is changed in place."""

    def __init__(self, need_weights: bool = False) -> None:
        super().__init__()
        self.attention, self.out = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 3)
        self.need_weights = need_weights

    def forward(self, x: Tensor) -> Tensor:
        y = self.attention(x, x, x, need_weights=self.need_weights)[0]
        y += x
        return self.out(torch.relu_(y).sum(1))


class ProjectedTwice(nn.Module):
    """out_proj is called by itself too."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.out = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.attention.out_proj(self.attention(x, x, x, need_weights=False)[0]).sum(1))


class OverTheBatch(nn.Module):
    """One image's rows without their dimension: attention over the batch, which is one image."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.out = nn.MultiheadAttention(4, 2), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.attention(x, x, x, need_weights=False)[0])


class Encoder(nn.Module):
    """nn.TransformerEncoder as torch writes it, with or without padding."""

    def __init__(self, layers: int, padding: bool = False, batch_first: bool = True, **options: Any) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(4, 2, 6, dropout=0.2, batch_first=batch_first, **options)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=batch_first)
        self.out, self.padding, self.batch_first = nn.Linear(4, 3), padding, batch_first

    def forward(self, x: Tensor) -> Tensor:
        padding = None
        if self.padding:
            padding = x[:, :, 0] > 0.5
            padding[:, 0] = False
        x = x if self.batch_first else x.transpose(0, 1)
        return self.out(self.encoder(x, src_key_padding_mask=padding)[:, 0] if self.batch_first else self.encoder(x)[0])


class Decoder(nn.Module):
    """nn.TransformerDecoderLayer: masked self-attention, then cross-attention."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 4)
        self.layer, self.out = nn.TransformerDecoderLayer(4, 2, 6, batch_first=True), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(3, dtype=x.dtype)
        return self.out(self.layer(x[:, :3], self.embed(x), tgt_mask=mask, tgt_is_causal=True)[:, -1])


def frozen_attention() -> nn.Module:
    """The projection's weight and out_proj's bias are not trained."""
    model = SelfAttention()
    model.attention.in_proj_weight.requires_grad_(False)
    model.attention.out_proj.bias.requires_grad_(False)
    return model
