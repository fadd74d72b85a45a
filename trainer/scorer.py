"""The module that is exported: raw features in; score, contributions and expected values out.

Raw features become columns (`trainer.columns`), prepared columns (`trainer.transforms`), then
every detector looks at them (`trainer.detectors`). One detector's raw score is the score; several
are brought together by `trainer.combine`. A contribution is the feature's part of the score.

Rules that the contract asks for:

- A row with no feature that varied among the fit rows (none at all, or constants alone, which
  say nothing), without one whose policy for missing values is `refuse`, or with an unseen text of
  a category whose policy for those is, scores NaN. Its contributions and
  expected values stay finite, and mean nothing.
- Every other row scores finite: infinities end at the limit of `trainer.transforms`.
- Contributions add up to the score. A detector's parts are scaled to its share of it; where a
  detector has a share and no parts, every feature that is present has the same.

Sums over features are products with ones: onnxruntime's ReduceSum gives a row other last bits
depending on where it lies in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from trainer.columns import Columns
from trainer.combine import SoftMaximum, Surprise
from trainer.detectors import Detected, Neighbours
from trainer.transforms import Prepared, Transforms

# Parts that add up to less are rounding (an event that equals a stored row has 1e-14 or nothing,
# by the kernel), and are shared out evenly.
_PARTS_MIN = 1e-7


class Refusals(NamedTuple):
    """Of each feature, whether a row is refused where it is missing, or its text unseen."""

    missing: tuple[bool, ...]
    unseen: tuple[bool, ...]


class Combination(nn.Module):
    """What makes one score of several detectors' raw scores."""

    def __init__(self, surprise: Surprise, maximum: SoftMaximum) -> None:
        super().__init__()
        self.surprise = surprise
        self.maximum = maximum

    def forward(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Return the score [n, 1] and the shares [n, h] of raw scores [n, h]."""
        score, shares = self.maximum(self.surprise(raw))
        return score, shares


class Scorer(nn.Module):
    """Columns, transforms, detectors and their combination, as one graph."""

    refusing: Tensor
    varying: Tensor
    feature_ones: Tensor
    column_ones: Tensor

    def __init__(
        self,
        columns: Columns,
        transforms: Transforms,
        detectors: Sequence[nn.Module],
        combination: Combination | None,
        refusals: Refusals,
    ) -> None:
        """Take `combination` for several detectors; None leaves one to speak for itself."""
        super().__init__()
        self.columns = columns
        self.transforms = transforms
        self.detectors = nn.ModuleList(detectors)
        self.combination = combination
        # One detector's parts are its score's, if it is a sum.
        self.adds_up = combination is None and not isinstance(detectors[0], Neighbours)
        self.refusals = refusals
        varying = columns.fold((transforms.limit > 0).to(torch.float32)[None]) > 0
        refusing = torch.tensor(refusals.missing).to(torch.float32)
        self.register_buffer("refusing", refusing[:, None])
        self.register_buffer("varying", varying.to(torch.float32).T)
        self.register_buffer("feature_ones", torch.ones(len(refusals.missing), 1))
        self.register_buffer("column_ones", torch.ones(columns.width, 1))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return score [n], contributions [n, d] and expected [n, d]."""
        prepared = self.transforms(self.columns(features))
        present = self.columns.present(prepared.present)
        count = (present @ self.feature_ones).clamp(min=1.0)
        seen = self.detect(prepared, count)
        raw = torch.cat([one.score for one in seen], dim=1)
        if self.combination is None:
            score, shares = raw, torch.ones_like(raw)
        else:
            score, shares = self.combination(raw)
        parts = seen[0].parts
        if not self.adds_up:
            parts = score * self._parts(seen, shares, prepared)
        unscorable = present @ self.varying < 0.5
        if any(self.refusals.missing):
            unscorable = unscorable | ((1.0 - present) @ self.refusing > 0.5)
        for place, texts in enumerate(self.columns.known):
            if texts is not None and self.refusals.unseen[place]:
                unscorable = unscorable | (features[:, place : place + 1] >= texts)
        contributions = self.columns.fold(parts)
        expected = self.transforms.inverse(_reconstruction(seen, prepared))
        return (
            torch.where(unscorable, torch.nan, score).squeeze(1),
            contributions,
            self.columns.expected(expected),
        )

    def detect(self, prepared: Prepared, count: Tensor) -> list[Detected]:
        """Return what each detector says; `count` [n, 1] are the features present.

        Where a network comes before them, `Neighbours` sees missing values as it expects them.
        """
        seen: list[Detected] = []
        for detector in self.detectors:
            shown = prepared
            if isinstance(detector, Neighbours):
                expected = _reconstruction(seen, prepared)
                filled = torch.where(prepared.present > 0.5, prepared.exact, expected)
                shown = prepared._replace(exact=filled)
            seen.append(detector(shown, count))
        return seen

    def _parts(self, seen: Sequence[Detected], shares: Tensor, prepared: Prepared) -> Tensor:
        """Return each column's share of the score, [n, e] of sum 1 over the present ones."""
        even = prepared.present / (prepared.present @ self.column_ones).clamp(min=1.0)
        parts = torch.zeros_like(prepared.present)
        for place, one in enumerate(seen):
            total = one.parts @ self.column_ones
            shared_out = one.parts / total.clamp(min=_PARTS_MIN)
            shared_out = torch.where(total > _PARTS_MIN, shared_out, even)
            parts = parts + shares[:, place : place + 1] * shared_out
        return parts


def _reconstruction(seen: Sequence[Detected], prepared: Prepared) -> Tensor:
    """Return the first reconstruction that there is, else the middle of the fit rows."""
    for one in seen:
        if one.reconstruction is not None:
            return one.reconstruction
    return torch.zeros_like(prepared.exact)
