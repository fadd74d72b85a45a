"""The detectors: each says of an event, in its own way, how unlike normal events it is.

- `Reconstruction`: a network gives back what it can of an event; the residual is what it cannot.
  The network is an autoencoder with a bottleneck, of any family, or a denoiser without one.
- `Neighbours`: the distance to the nearest of some rows of the training data, in the whitened
  view. Rows of four random blocks are searched apart and the distances averaged, which says more
  than the one nearest row of all. Such a model holds training rows, and its contract says so.
- `Norm`: the distance from the middle of the normal events, column by column, in the rank-Gauss
  view. Plain, and the best of all where anomalies are simply extreme.

All are blind in different places; `trainer.combine` brings them together. A detector gives parts
[n, e], one for each column, never negative and 0 where it is missing, and a raw score [n, 1].
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from trainer.transforms import Prepared
from trainer.views import RankGauss, Whitened

# A residual's variance counts as at least this (prepared features have variance 1): below it,
# rounding inside the network would be taken for surprise. With 0.1, 0.01 and no weights at all
# the mean AUC of nine tabular sets was 87.0, 86.7 and 87.1, A->4l's .980, .979 and .979.
_VARIANCE_MIN = 0.1

# One wild value among the held-out events must not blind the score to its feature; a feature
# that is there once in ten thousand events, at 100 deviations, is rare and not wild.
_OUTLIER = 100.0

_BLOCKS = 4
_PIECE_ROWS = 4096
# Added to mean squared distances. The search errs by some 1e-6 of them in float32, and may take
# the second nearest row where many lie close together: that must not be seen in the score.
_SQUARED_FLOOR = 1e-3


class Detected(NamedTuple):
    """What a detector says of n events: `score` [n, 1] and `parts` [n, e].

    `reconstruction` [n, e], in prepared units, of those that have one.
    """

    score: Tensor
    parts: Tensor
    reconstruction: Tensor | None


class Reconstruction(nn.Module):
    """The mean, over the features present, of the weighted squared residual.

    A residual is divided by what it is for normal events, so that each feature of one is
    expected to give about 1. The mean over present features keeps a normal event's score near 1
    however many are missing.
    """

    weights: Tensor
    varying: Tensor
    ones: Tensor

    def __init__(self, network: nn.Module, weights: npt.NDArray[np.float32], limit: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("weights", torch.from_numpy(weights))
        self.register_buffer("varying", limit > 0)
        self.register_buffer("ones", torch.ones(len(weights), 1))

    def forward(self, prepared: Prepared, count: Tensor) -> Detected:
        # What never varied is not left to the network: its reconstruction is the constant.
        reconstruction = torch.where(self.varying, self.network(prepared.network), torch.zeros(()))
        residual = prepared.exact - reconstruction
        parts = residual * residual * self.weights * prepared.present / count
        return Detected(parts @ self.ones, parts, reconstruction)


class Norm(nn.Module):
    """The mean square of the rank-Gauss view over the features present."""

    share: Tensor
    ones: Tensor

    def __init__(self, view: RankGauss, share: npt.NDArray[np.float32]) -> None:
        super().__init__()
        self.view = view
        self.register_buffer("share", torch.from_numpy(share))
        self.register_buffer("ones", torch.ones(len(share), 1))

    def forward(self, prepared: Prepared, count: Tensor) -> Detected:
        bent = self.view(prepared.exact)
        parts = bent * bent * self.share * prepared.present / count
        return Detected(parts @ self.ones, parts, None)


class Neighbours(nn.Module):
    """The mean, over four blocks of stored rows, of the distance to the nearest of each.

    The nearest row is found by |a|^2 / 2 - a b, which is quick and coarse; the distance to it is
    then computed from the difference. A part is the column's share of the squared distance, as
    its difference times the metric's gradient there, without regard to sign.

    A missing value is what `trainer.scorer` fills it with. Left out of the difference it would be
    exactly as in the stored row, against all correlations, and the event far from everything.
    """

    rows: Tensor
    turned: Tensor
    half_squares: Tensor
    ones: Tensor

    def __init__(self, view: Whitened, rows: Prepared) -> None:
        """Store `rows`, as many as a multiple of the blocks."""
        super().__init__()
        self.view = view
        stored = view(rows.exact)
        turned = view.turned(stored)
        self.register_buffer("rows", stored)
        self.register_buffer("turned", turned.T.contiguous())
        self.register_buffer("half_squares", (turned * turned).sum(1) / 2)
        self.register_buffer("ones", torch.ones(stored.shape[1], 1))
        self.width = float(stored.shape[1])

    def forward(self, prepared: Prepared, count: Tensor) -> Detected:
        columns = self.view(prepared.exact)
        nearness = self.half_squares - self.view.turned(columns) @ self.turned
        size = len(self.rows) // _BLOCKS
        score, parts = torch.zeros_like(count), torch.zeros_like(columns)
        for start in range(0, len(self.rows), size):
            nearest = nearness[:, start : start + size].argmin(dim=1) + start
            difference = columns - self.rows[nearest]
            products = difference * self.view.gradient(difference)
            squared = (products @ self.ones).clamp(min=0.0) / self.width
            score = score + torch.sqrt(squared + _SQUARED_FLOOR) / _BLOCKS
            parts = parts + products.abs() * prepared.present
        return Detected(score, parts, None)


def stored_rows(n: int, wanted: int, seed: int) -> npt.NDArray[np.int64]:
    """Return which of `n` rows to store: at most `wanted`, a multiple of the blocks."""
    order = np.random.default_rng(seed).permutation(n)
    return np.sort(order[: min(wanted, n) // _BLOCKS * _BLOCKS])


def residual_weights(
    network: nn.Module, limit: Tensor, share: npt.NDArray[np.float32], *rows: Prepared
) -> npt.NDArray[np.float32]:
    """Return the weight of each column: one over the residual's variance on normal events.

    Of the parts of the rows the largest variance counts: the network knows the fit rows, but
    only they are many enough to show how a rare value looks.
    """
    variances = torch.stack([_variance(network, part) for part in rows])
    weights = 1.0 / variances.amax(0).clamp(min=_VARIANCE_MIN)
    return np.asarray(torch.where(limit > 0, weights, torch.ones(())), np.float32) * share


def in_pieces(rows: Prepared) -> Iterator[Prepared]:
    """Yield the rows a few thousand at a time, so that memory does not grow with them."""
    for start in range(0, len(rows.exact), _PIECE_ROWS):
        yield Prepared(*(part[start : start + _PIECE_ROWS] for part in rows))


def _variance(network: nn.Module, rows: Prepared) -> Tensor:
    total = torch.zeros(rows.exact.shape[1])
    with torch.no_grad():
        for piece in in_pieces(rows):
            residual = (piece.exact - network(piece.network)).clamp(-_OUTLIER, _OUTLIER)
            total += (residual * residual * piece.present).sum(0)
    return total / rows.present.sum(0).clamp(min=1.0)
