"""Convolutional autoencoders: along the objects of an event, or over a grid.

An event of shape (objects, values) is one axis of objects whose values are the channels: what is
learnt of one object and its neighbours holds anywhere along the axis. An event of shape
(channels, rows, columns) is an image. Each layer halves every axis, and the code is a linear map
of what is left, so that it can still tell the positions apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from trainer.autoencoder import ACTIVATIONS, Activation, Normalisation, RowNorm, normalise
from trainer.shape import axes_of, channels_of

_STRIDE = 2


class ConvolutionalAutoencoder(nn.Module):
    """Shape -> strided convolutions of these widths -> bottleneck -> the same back -> shape.

    `widths` are the channels of the encoder's layers, outermost first; `kernel` is odd. As in
    the dense family, neither the bottleneck nor the output is normalised or bent.
    """

    def __init__(
        self,
        shape: Sequence[int],
        widths: Sequence[int],
        bottleneck: int,
        kernel: int = 3,
        activation: Activation = "leaky_relu",
        normalisation: Normalisation = "none",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.values_last = len(shape) == 2
        axes, channels = axes_of(shape), channels_of(shape)
        self.planes = (channels, *axes)
        sizes = _halved(axes, len(widths))
        channels_at = [channels, *widths]
        innermost = (widths[-1], *sizes[-1])
        flat = math.prod(innermost)

        def bent(width: int, size: Sequence[int]) -> list[nn.Module]:
            layers = [*_normalise(normalisation, width, size), ACTIVATIONS[activation]()]
            return [*layers, nn.Dropout(dropout)] if dropout else layers

        encoder: list[nn.Module] = []
        for depth, width in enumerate(widths):
            encoder += [_convolution(len(axes), channels_at[depth], width, kernel)]
            encoder += bent(width, sizes[depth + 1])
        self.encoder = nn.Sequential(*encoder, nn.Flatten(), nn.Linear(flat, bottleneck))

        decoder = [nn.Linear(bottleneck, flat), *bent(flat, ()), nn.Unflatten(1, innermost)]
        for depth in reversed(range(len(widths))):
            outer = channels_at[depth]
            decoder += [_transposed(widths[depth], outer, kernel, sizes[depth])]
            decoder += bent(outer, sizes[depth]) if depth else []
        self.decoder = nn.Sequential(*decoder)

    def forward(self, x: Tensor) -> Tensor:
        if self.values_last:
            channels, objects = self.planes
            planes = x.reshape(-1, objects, channels).transpose(1, 2)
            reconstruction: Tensor = self.decoder(self.encoder(planes)).transpose(1, 2)
        else:
            reconstruction = self.decoder(self.encoder(x.reshape(-1, *self.planes)))
        return reconstruction.flatten(1)


def depth_max(shape: Sequence[int]) -> int:
    """Return how many layers can halve an axis of the shape before each is a single place."""
    return (max(axes_of(shape)) - 1).bit_length()


def _halved(axes: Sequence[int], times: int) -> list[tuple[int, ...]]:
    """Return the sizes before, between and after so many layers: half, rounded up."""
    sizes = [tuple(axes)]
    for _ in range(times):
        sizes.append(tuple(math.ceil(axis / _STRIDE) for axis in sizes[-1]))
    return sizes


def _convolution(axes: int, wide: int, next_wide: int, kernel: int) -> nn.Module:
    kind = nn.Conv1d if axes == 1 else nn.Conv2d
    return kind(wide, next_wide, kernel, stride=_STRIDE, padding=kernel // 2)


def _transposed(wide: int, next_wide: int, kernel: int, size: Sequence[int]) -> nn.Module:
    """Return the layer that undoes the shape of `_convolution`, to this size."""
    kind = nn.ConvTranspose1d if len(size) == 1 else nn.ConvTranspose2d
    # A half that was rounded up comes back one too large unless told: 19 -> 10 -> 19, not 20.
    padding: list[int] = [(axis + 1) % _STRIDE for axis in size]
    return kind(
        wide,
        next_wide,
        kernel,
        stride=_STRIDE,
        padding=kernel // 2,
        output_padding=padding,  # type: ignore[arg-type]  # A tuple of unknown length.
    )


def _normalise(kind: Normalisation, width: int, size: Sequence[int]) -> list[nn.Module]:
    if not size:
        return normalise(kind, width)
    match kind:
        case "none":
            return []
        case "batch":
            return [nn.BatchNorm1d(width) if len(size) == 1 else nn.BatchNorm2d(width)]
        case "layer":
            return [_EventNorm(width * math.prod(size))]


class _EventNorm(nn.Module):
    """Layer normalisation over all channels and places of an event."""

    def __init__(self, values: int) -> None:
        super().__init__()
        self.norm = RowNorm(values)

    def forward(self, x: Tensor) -> Tensor:
        normalised: Tensor = self.norm(x.flatten(1))
        return normalised.reshape(x.shape)
