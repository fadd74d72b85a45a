"""Attention over the objects of an event.

An event of shape (objects, values): each object is embedded with its place, objects look at one
another in blocks of self-attention (Vaswani et al., Attention is all you need, 2017; normalised
before each half as in Xiong et al., On layer normalization in the transformer architecture,
2020), and a linear map of all of them gives the code. The decoder mirrors this.

Written out here because torch's own encoder layers hold its LayerNorm, whose result depends on
the row's place in memory; softmax's does not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trainer.autoencoder import ACTIVATIONS, Activation, RowNorm

# The usual ratio of the feed-forward half's width to the block's is 4; events are small.
_FEED_FORWARD_RATIO = 2
# As small as a language model's embeddings begin: the values, not the places, lead at first.
_PLACE_SCALE = 0.02


class AttentionAutoencoder(nn.Module):
    """Objects x values -> embedding -> blocks -> bottleneck -> blocks -> objects x values.

    `blocks` is how many each half has; `width` of an object's embedding is a multiple of `heads`.
    """

    def __init__(
        self,
        shape: Sequence[int],
        width: int,
        blocks: int,
        bottleneck: int,
        heads: int = 1,
        activation: Activation = "leaky_relu",
        layer_norm: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.objects, self.values = shape
        self.width = width

        def stack() -> nn.Sequential:
            return nn.Sequential(
                *(_Block(width, heads, activation, layer_norm, dropout) for _ in range(blocks))
            )

        self.embedding = nn.Linear(self.values, width)
        self.places = nn.Parameter(_PLACE_SCALE * torch.randn(self.objects, width))
        self.encoder = stack()
        self.code = nn.Linear(self.objects * width, bottleneck)
        self.spread = nn.Linear(bottleneck, self.objects * width)
        self.decoder = stack()
        self.output = nn.Linear(width, self.values)

    def forward(self, x: Tensor) -> Tensor:
        objects = self.embedding(x.reshape(-1, self.objects, self.values)) + self.places
        code = self.code(self.encoder(objects).flatten(1))
        objects = self.spread(code).reshape(-1, self.objects, self.width)
        reconstruction: Tensor = self.output(self.decoder(objects))
        return reconstruction.flatten(1)


class _Block(nn.Module):
    """Attention, then a feed-forward half; each adds to what it was given."""

    def __init__(
        self, width: int, heads: int, activation: Activation, layer_norm: bool, dropout: float
    ) -> None:
        super().__init__()

        def half(*layers: nn.Module) -> nn.Sequential:
            before = [RowNorm(width)] if layer_norm else []
            return nn.Sequential(*before, *layers, *([nn.Dropout(dropout)] if dropout else []))

        wide = _FEED_FORWARD_RATIO * width
        self.attention = half(_SelfAttention(width, heads))
        self.feed_forward = half(
            nn.Linear(width, wide), ACTIVATIONS[activation](), nn.Linear(wide, width)
        )

    def forward(self, objects: Tensor) -> Tensor:
        objects = objects + self.attention(objects)
        changed: Tensor = objects + self.feed_forward(objects)
        return changed


class _SelfAttention(nn.Module):
    """Multi-head scaled dot-product attention, [n, objects, width] to the same."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, objects: Tensor) -> Tensor:
        n, count, width = objects.shape
        by_head = (n, count, 3, self.heads, width // self.heads)
        # Each [n, heads, objects, width / heads].
        queries, keys, values = (
            self.queries_keys_values(objects).reshape(by_head).permute(2, 0, 3, 1, 4).unbind(0)
        )
        likeness = queries @ keys.transpose(2, 3) / math.sqrt(width // self.heads)
        seen = torch.softmax(likeness, dim=-1) @ values
        output: Tensor = self.output(seen.transpose(1, 2).reshape(n, count, width))
        return output
