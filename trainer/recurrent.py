"""Recurrent autoencoders: LSTM and GRU along the sequence of an event.

An event of shape (steps, values) is read step by step: objects in their order, or a window of
readings. A linear map of the states of all steps gives the code, and another spreads it over the
steps again, from which the decoder's recurrences make the sequence. The usual code, the last
state alone (Srivastava et al., Unsupervised learning of video representations using LSTMs, 2015),
learnt collision events far worse: after 8 epochs a validation loss of .37 for the LSTM and .39
for the GRU against .08 and .07, and an AUC of LQ of .93 against .95.

A cell's tanh and sigmoid belong to it: there is no other activation to choose.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from trainer.autoencoder import RowNorm

Cell = Literal["lstm", "gru"]

_GATES: dict[Cell, int] = {"lstm": 4, "gru": 3}


class RecurrentAutoencoder(nn.Module):
    """Steps x values -> recurrences of these widths -> bottleneck -> the same back.

    `widths` are the sizes of the encoder's states, outermost first. With `layer_norm` the states
    of each recurrence are normalised, step by step; dropout stands after it.
    """

    def __init__(
        self,
        cell: Cell,
        shape: Sequence[int],
        widths: Sequence[int],
        bottleneck: int,
        layer_norm: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.steps, self.values = shape
        self.encoder = _recurrences(cell, [self.values, *widths], layer_norm, dropout)
        self.code = nn.Linear(self.steps * widths[-1], bottleneck)
        self.spread = nn.Linear(bottleneck, self.steps * widths[-1])
        self.decoder = _recurrences(cell, [widths[-1], *reversed(widths)], layer_norm, dropout)
        self.output = nn.Linear(widths[0], self.values)

    def forward(self, x: Tensor) -> Tensor:
        states = self.encoder(x.reshape(-1, self.steps, self.values))
        states = self.spread(self.code(states.flatten(1))).reshape(states.shape)
        reconstruction: Tensor = self.output(self.decoder(states))
        return reconstruction.flatten(1)


def _recurrences(
    cell: Cell, widths: Sequence[int], layer_norm: bool, dropout: float
) -> nn.Sequential:
    """Return recurrences one after another, [n, steps, first width] to [n, steps, last width]."""
    layers: list[nn.Module] = []
    for wide, width in pairwise(widths):
        layers += [_Recurrence(cell, wide, width), *([RowNorm(width)] if layer_norm else [])]
        layers += [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(*layers)


class _Recurrence(nn.Module):
    """One layer of cells, [n, steps, wide] to its states [n, steps, width].

    nn.LSTM and nn.GRU are this function and its weights, of which they keep a second list; the
    exporter warns of that at every export.
    """

    def __init__(self, cell: Cell, wide: int, width: int) -> None:
        super().__init__()
        self.cell, self.width = cell, width
        gates = _GATES[cell] * width
        bound = 1 / math.sqrt(width)  # As torch begins its own.
        self.weights = nn.ParameterList(
            nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
            for shape in ((gates, wide), (gates, width), (gates,), (gates,))
        )

    def forward(self, x: Tensor) -> Tensor:
        # Not len(x), which would fix the exported graph to the example's n.
        start = x.new_zeros(1, x.shape[0], self.width)
        # Weights with biases, one layer, no dropout of its own, one direction, n first.
        how = (list(self.weights), True, 1, 0.0, self.training, False, True)
        if self.cell == "lstm":
            return torch.lstm(x, (start, start), *how)[0]
        return torch.gru(x, start, *how)[0]
