"""Calibration: scores of held-out normal events, and what follows from them.

The p-value of a score s against n calibration scores is the conformal one,

    p(s) = (1 + #{calibration >= s}) / (n + 1)

(Vovk, Gammerman, Shafer: Algorithmic Learning in a Random World, 2005, chapter 2). For events
exchangeable with the calibration set, P(p <= a) <= a for every a. The threshold for a target
flag rate a is the k-th largest calibration score, where k is the largest count with
k / (n + 1) <= a: then, ties included,

    score > threshold  <=>  p(score) <= a.

Both sides are computed by the same floating-point division, so they agree at every value.
"""

from __future__ import annotations

from functools import cached_property

import msgspec
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

# Up to here all scores are stored (256 KiB as float32); beyond it the exact top, which holds
# every threshold and every small p-value, and a grid below.
STORED_WHOLE_MAX = 65_536
STORED_EXACT_TOP = 16_384
STORED_GRID = 4_096


class Calibration(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """Held-out normal scores: `values` ascending, little-endian float32.

    `counts`, little-endian uint32, says how many scores each value stands for (absent: one
    each). A score that is not stored itself was rounded up to the next stored value, so that
    a p-value is never smaller than the whole set would give.
    """

    values: bytes
    counts: bytes | None = None

    @classmethod
    def of(cls, scores: npt.ArrayLike) -> Calibration:
        """Hold the finite float32 `scores` of n >= 1 normal events.

        Raises:
            ValueError: no score, or one that is not finite.
        """
        ordered = np.sort(np.asarray(scores, dtype="<f4").ravel())
        if not len(ordered) or not np.isfinite(ordered).all():
            raise ValueError("calibration wants at least one score, all of them finite")
        if len(ordered) <= STORED_WHOLE_MAX:
            return cls(values=ordered.tobytes())
        below, top = ordered[:-STORED_EXACT_TOP], ordered[-STORED_EXACT_TOP:]
        last = np.unique(np.linspace(0, len(below) - 1, STORED_GRID + 1).astype(np.int64)[1:])
        counts = np.concatenate([np.diff(last, prepend=-1), np.ones(len(top), np.int64)])
        values = np.concatenate([below[last], top])
        return cls(values=values.tobytes(), counts=counts.astype("<u4").tobytes())

    @cached_property
    def scores(self) -> Floats:
        """The stored values, ascending, shape [m]."""
        return np.frombuffer(self.values, "<f4")

    @cached_property
    def _at_least(self) -> npt.NDArray[np.int64]:
        """How many calibration scores lie at or above each stored value; 0 beyond the last."""
        counts = (
            np.ones(len(self.scores), np.int64)
            if self.counts is None
            else np.frombuffer(self.counts, "<u4").astype(np.int64)
        )
        return np.append(counts[::-1].cumsum()[::-1], 0)

    @cached_property
    def _p_values_at(self) -> npt.NDArray[np.float64]:
        """The p-value of a score at each stored value; the smallest beyond the last."""
        return (1 + self._at_least) / (self.n + 1)

    @property
    def n(self) -> int:
        """How many normal events were scored."""
        return int(self._at_least[0])

    @property
    def smallest_rate(self) -> float:
        """The smallest target flag rate that n events support: 1 / (n + 1)."""
        return 1 / (self.n + 1)

    def p_values(self, scores: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Return the p-value of each of `scores`, of any shape; one of a NaN means nothing."""
        first_at_least = np.searchsorted(self.scores, np.asarray(scores, np.float32), side="left")
        p_values: npt.NDArray[np.float64] = self._p_values_at[first_at_least]
        return p_values

    def threshold(self, target_flag_rate: float) -> float:
        """Return the score above which an event is flagged.

        Raises:
            ValueError: the rate is not below 1, or n cannot support it.
        """
        k = self.flagged_max(target_flag_rate)
        if not 1 <= k <= self.n:
            raise ValueError(
                f"a flag rate of {target_flag_rate:g} needs 1/(n + 1) <= rate < 1, "
                f"and n is {self.n:,}"
            )
        return float(self.scores[np.flatnonzero(self._at_least[:-1] >= k)[-1]])

    def flagged_max(self, rate: float) -> int:
        """Return the largest k with k / (n + 1) <= rate, by the division that p-values use."""
        k = int(rate * (self.n + 1))
        while (k + 1) / (self.n + 1) <= rate:
            k += 1
        while k / (self.n + 1) > rate:
            k -= 1
        return k
