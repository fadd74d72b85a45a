"""Rows and their scores, by which a reader of a sealed model knows whether it scores as it must."""

from __future__ import annotations

import msgspec
import numpy as np

from schemas.calibration import Floats


class GoldenBatch(msgspec.Struct, frozen=True, kw_only=True):
    """Rows and the scores that the sealing machine gave them: little-endian float32.

    Ordinary, extreme, missing and constant rows, all drawn, none from the training data.
    """

    features: bytes
    scores: bytes

    @classmethod
    def of(cls, features: Floats, scores: Floats) -> GoldenBatch:
        return cls(
            features=np.ascontiguousarray(features, "<f4").tobytes(),
            scores=np.ascontiguousarray(scores, "<f4").tobytes(),
        )

    def rows(self, width: int) -> Floats:
        """Return the rows as float32 [m, width]."""
        return np.frombuffer(self.features, "<f4").reshape(-1, width)

    def expected_scores(self) -> Floats:
        """Return their scores as float32 [m]."""
        return np.frombuffer(self.scores, "<f4")
