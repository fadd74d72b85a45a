"""The module that is exported: raw features in; score, contributions and expected values out.

A feature's residual is its prepared value less the network's reconstruction. A part is the
residual squared, divided by what it is for normal events (the weight), so that every feature of
a normal event is expected to give about 1; the score is the mean of the parts over the
features that are present. Why so:

- The mean over present features keeps a normal event's score near 1 however many features are
  missing. A sum would make events look more normal the less is known of them, and a plain mean
  of squared residuals would depend on which ones are missing.
- A feature that is always reconstructed badly tells little, one that never is tells much.

Rules that the contract asks for:

- A row with no feature that varied among the fit rows (none at all, or constants alone, which
  say nothing), or without one whose policy is `refuse`, scores NaN. Its contributions and
  expected values stay finite, and mean nothing.
- Every other row scores finite: infinities end at the limit of `trainer.transforms`.
- The score is the sum of the contributions by construction, so the format's rule for a score
  whose parts are all 0 (equal parts) never applies.

Sums over features are products with ones: onnxruntime's ReduceSum gives a row other last bits
depending on where it lies in memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from trainer.transforms import Prepared, Transforms

# A residual's variance counts as at least this (prepared features have variance 1): below it,
# rounding inside the network would be taken for surprise. With 0.1, 0.01 and no weights at all
# the mean AUC of nine tabular sets was 87.0, 86.7 and 87.1, A->4l's .980, .979 and .979.
_VARIANCE_MIN = 0.1

# One wild value among the held-out events must not blind the score to its feature; a feature
# that is there once in ten thousand events, at 100 deviations, is rare and not wild.
_OUTLIER = 100.0


class Scorer(nn.Module):
    """Transforms, network and weights, as one graph."""

    weights: Tensor
    refusing: Tensor
    varying: Tensor
    ones: Tensor

    def __init__(
        self,
        transforms: Transforms,
        network: nn.Module,
        weights: npt.NDArray[np.float32],
        refusing: Sequence[bool],
    ) -> None:
        super().__init__()
        self.transforms = transforms
        self.network = network
        self.any_refusing = any(refusing)
        self.register_buffer("weights", torch.from_numpy(weights))
        self.register_buffer("refusing", torch.tensor(refusing).to(torch.float32)[:, None])
        self.register_buffer("varying", (transforms.limit > 0).to(torch.float32)[:, None])
        self.register_buffer("ones", torch.ones(len(weights), 1))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return score [n], contributions [n, d] and expected [n, d]."""
        prepared = self.transforms(features)
        # What never varied is not left to the network: its reconstruction is the constant.
        reconstruction = torch.where(
            self.transforms.limit > 0, self.network(prepared.network), torch.zeros(())
        )
        residual = prepared.exact - reconstruction
        parts = residual * residual * self.weights * prepared.present
        count = prepared.present @ self.ones
        contributions = parts / count.clamp(min=1.0)
        unscorable = prepared.present @ self.varying < 0.5
        if self.any_refusing:
            unscorable = unscorable | ((1.0 - prepared.present) @ self.refusing > 0.5)
        score = torch.where(unscorable, torch.nan, contributions @ self.ones)
        return score.squeeze(1), contributions, self.transforms.inverse(reconstruction)


def residual_weights(
    transforms: Transforms, network: nn.Module, fit_rows: Prepared, stop_rows: Prepared
) -> npt.NDArray[np.float32]:
    """Return the weight of each feature: one over the residual's variance on normal events.

    Of the two parts the larger variance counts: the network knows the fit rows, but only they
    are many enough to show how a rare value looks.
    """
    with torch.no_grad():
        variance = torch.maximum(_variance(network, fit_rows), _variance(network, stop_rows))
    weights = 1.0 / variance.clamp(min=_VARIANCE_MIN)
    return np.asarray(torch.where(transforms.limit > 0, weights, torch.ones(())), np.float32)


def _variance(network: nn.Module, rows: Prepared) -> Tensor:
    residual: Tensor = (rows.exact - network(rows.network)).clamp(-_OUTLIER, _OUTLIER)
    squared = residual * residual * rows.present
    return squared.sum(0) / rows.present.sum(0).clamp(min=1.0)
