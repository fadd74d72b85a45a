"""The dense network: an autoencoder that learns to give back what normal events look like.

Dense and mirrored; and the parts that it shares with the other families. Those (convolutions,
recurrences) are other modules from [n, d] to [n, d] in files beside this one;
`trainer.network` chooses, and nothing else needs to know which it is. Every operation used must
give a row the same bits in any batch: linear layers and elementwise functions do, torch's own
LayerNorm does not (its mean is a ReduceMean, whose result in onnxruntime depends on the row's
place in memory).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

Activation = Literal["leaky_relu", "relu", "tanh", "sigmoid", "silu", "gelu"]
Normalisation = Literal["none", "batch", "layer"]

ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    "leaky_relu": nn.LeakyReLU,
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
}


class Autoencoder(nn.Module):
    """data_dim -> hidden widths -> bottleneck -> the same back -> data_dim.

    `hidden` are the encoder's widths, outermost first. Neither the bottleneck nor the output is
    normalised or bent: both must be free to take any value.
    """

    def __init__(
        self,
        data_dim: int,
        hidden: Sequence[int] = (128, 64),
        bottleneck: int | None = None,
        activation: Activation = "leaky_relu",
        normalisation: Normalisation = "none",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.bottleneck = bottleneck or default_bottleneck(data_dim)

        def stack(widths: Sequence[int]) -> nn.Sequential:
            layers: list[nn.Module] = []
            for wide, next_wide in pairwise(widths[:-1]):
                layers += [nn.Linear(wide, next_wide), *normalise(normalisation, next_wide)]
                layers += [ACTIVATIONS[activation]()]
                layers += [nn.Dropout(dropout)] if dropout else []
            return nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1]))

        self.encoder = stack([data_dim, *hidden, self.bottleneck])
        self.decoder = stack([self.bottleneck, *reversed(hidden), data_dim])

    def forward(self, x: Tensor) -> Tensor:
        reconstruction: Tensor = self.decoder(self.encoder(x))
        return reconstruction


def default_bottleneck(data_dim: int) -> int:
    """Return a quarter of the features, at least one.

    On collision events better than an eighth (A->4l AUC .980 against .977); on nine tabular sets
    within a point of it, in the mean, and better than a half.
    """
    return max(1, round(data_dim / 4))


def normalise(kind: Normalisation, width: int) -> list[nn.Module]:
    """Return what normalises values [n, width]: one module, or none."""
    match kind:
        case "none":
            return []
        case "batch":
            return [nn.BatchNorm1d(width)]
        case "layer":
            return [RowNorm(width)]


class RowNorm(nn.Module):
    """Layer normalisation of the last axis.

    Its means are products with a constant, which are the same in any batch.
    """

    averager: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width))
        self.shift = nn.Parameter(torch.zeros(width))
        self.register_buffer("averager", torch.full((width, 1), 1.0 / width))

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x @ self.averager
        variance = (centred * centred) @ self.averager
        return centred / torch.sqrt(variance + 1e-5) * self.gain + self.shift
