"""A small vision transformer (Dosovitskiy et al. 2021, the sizes of DeiT-tiny with fewer blocks)."""

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head self-attention, softmax(Q K^T / sqrt(d)) V, of two linear layers and plain tensor operations."""

    def __init__(self, width: int, *, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Float[Tensor, "images tokens width"]) -> Float[Tensor, "images tokens width"]:
        """The attended tokens."""
        # written out, because fused attention has no rule for torch.func.vmap on every device
        split = self.qkv(tokens).unflatten(-1, (3, self.heads, -1))
        query, key, value = split.permute(2, 0, 3, 1, 4)  # each [images, heads, tokens, width / heads]
        weights = (query @ key.transpose(-2, -1) * key.shape[-1] ** -0.5).softmax(dim=-1)
        return self.proj((weights @ value).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, width: int, *, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads=heads)
        self.norm2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 4 * width)
        self.gelu = nn.GELU()
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, tokens: Float[Tensor, "images tokens width"]) -> Float[Tensor, "images tokens width"]:
        """The block's tokens."""
        attended = tokens + self.attention(self.norm1(tokens))
        return attended + self.fc2(self.gelu(self.fc1(self.norm2(attended))))  # type: ignore[no-any-return]


class VisionTransformer(nn.Module):
    """Patches, a class token, learned positions, `depth` blocks, a norm and a linear head on the class token."""

    def __init__(
        self,
        *,
        classes: int,
        channels: int,
        image_size: int,
        width: int = 192,
        depth: int = 6,
        heads: int = 3,
        patch: int = 4,
    ) -> None:
        super().__init__()
        if image_size % patch:
            raise ValueError(f"patch must divide the image size, {image_size}; got {patch!r}.")
        if width % heads:
            raise ValueError(f"heads must divide the width, {width}; got {heads!r}.")
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.position_embedding = nn.Parameter(torch.empty(1, (image_size // patch) ** 2 + 1, width))
        self.patches = nn.Conv2d(channels, width, patch, stride=patch)
        self.blocks = nn.Sequential(*(Block(width, heads=heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)
        self._initialise()

    def _initialise(self) -> None:
        """Truncated normal of sd 0.02 as for transformers; the patches as 1 / sqrt(inputs); biases 0."""
        for token in (self.cls_token, self.position_embedding):
            nn.init.trunc_normal_(token, std=0.02)
        nn.init.trunc_normal_(self.patches.weight, std=self.patches.weight[0].numel() ** -0.5)
        nn.init.zeros_(cast(Tensor, self.patches.bias))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, images: Float[Tensor, "images channels height width"]) -> Float[Tensor, "images classes"]:
        """Logits."""
        patches = self.patches(images).flatten(2).transpose(1, 2)  # [images, patches, width]
        tokens = torch.cat([self.cls_token.expand(len(patches), -1, -1), patches], dim=1)
        tokens = self.norm(self.blocks(tokens + self.position_embedding))
        return self.head(tokens[:, 0])  # type: ignore[no-any-return]
