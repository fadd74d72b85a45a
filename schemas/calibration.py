"""Calibration: scores of held-out normal events, and what follows from them.

The p-value of a score s against n calibration scores is the conformal one,

    p(s) = (1 + #{calibration >= s}) / (n + 1)

(Vovk, Gammerman, Shafer: Algorithmic Learning in a Random World, 2005, chapter 2). For events
exchangeable with the calibration set, P(p <= a) <= a for every a. The threshold for a target
flag rate a is the k-th largest calibration score, where k is the largest count with
k / (n + 1) <= a: then, ties included,

    score > threshold  <=>  p(score) <= a.

Both sides are computed by the same floating-point division, so they agree at every value.

Where a `Tail` was fitted, p-values above its first step are the tail's instead: an extrapolation,
which no calibration score bears out, and the only way to a p-value below 1 / (n + 1). It is a table
of steps as well, so that the rule above holds for it in the same way.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

# Up to here all scores are stored (256 KiB as float32); beyond it the exact top, which holds
# every threshold and every small p-value, and a grid below.
STORED_WHOLE_MAX = 65_536
STORED_EXACT_TOP = 16_384
STORED_GRID = 4_096

TailScale = Literal["score", "log_score"]


class Tail(msgspec.Struct, frozen=True, kw_only=True):
    """p-values above a level, by a generalised Pareto distribution fitted to the scores there.

    A score above `values[i]` and not above `values[i + 1]` has `p_values[i]`, rounded up from the
    distribution's. `values`: little-endian float32, ascending, the first the level, which is a
    calibration score. `p_values`: little-endian float64, descending, the last for every score
    beyond.

    The rest is for people: how many excesses were fitted, on which scale, the shape (below 0: the
    tail ends; 0: exponential), the p-value of the fit, and between which flag rates the threshold's
    lies, with nine chances in ten, if the tail goes on as it was fitted.
    """

    values: bytes
    p_values: bytes
    excesses: int
    scale: TailScale
    shape: float
    fit_p_value: float
    flag_rate_low: float
    flag_rate_high: float

    @property
    def steps(self) -> tuple[Floats, npt.NDArray[np.float64]]:
        """The two columns of the table."""
        return np.frombuffer(self.values, "<f4"), np.frombuffer(self.p_values, "<f8")

    def complaints(self) -> Iterator[str]:
        """Yield what contradicts itself."""
        if not self.values or len(self.values) % 4 or len(self.p_values) != 2 * len(self.values):
            yield "the tail's lengths differ"
            return
        values, p_values = self.steps
        if not np.isfinite(values).all() or not (np.diff(values) > 0).all():
            yield "the tail's values are not finite and ascending"
        if not ((p_values > 0) & (p_values < 1)).all() or not (np.diff(p_values) < 0).all():
            yield "the tail's p-values are not within 0 to 1 and descending"
        if not 0 <= self.flag_rate_low <= self.flag_rate_high <= 1:
            yield "the tail's flag rates are not within 0 to 1 and ascending"
        if not (math.isfinite(self.shape) and 0 <= self.fit_p_value <= 1):
            yield "the tail's shape is not finite, or its fit's p-value not within 0 to 1"


class Calibration(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """Held-out normal scores: `values` ascending, little-endian float32.

    `counts`, little-endian uint32, says how many scores each value stands for (absent: one
    each). A score that is not stored itself was rounded up to the next stored value, so that
    a p-value is never smaller than the whole set would give.
    """

    values: bytes
    counts: bytes | None = None
    tail: Tail | msgspec.UnsetType = msgspec.UNSET  # Not in the JSON where there is none.

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

    @property
    def weighted(self) -> tuple[Floats, npt.NDArray[np.int64]]:
        """The stored values, and how many calibration scores each stands for, both [m]."""
        return self.scores, -np.diff(self._at_least)

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
    def _conformal(self) -> npt.NDArray[np.float64]:
        """The conformal p-value of a score at each stored value; the smallest beyond the last."""
        return (1 + self._at_least) / (self.n + 1)

    @cached_property
    def steps(self) -> tuple[Floats, npt.NDArray[np.float64]]:
        """Where the p-value falls, ascending; and the p-value of scores not above each, and above.

        So the p-value of a score is the one whose place is the number of steps below it.
        """
        if self.tail is msgspec.UNSET:
            return self.scores, self._conformal
        steps, p_values = self.tail.steps
        kept = int(np.searchsorted(self.scores, steps[0], side="right"))
        return (
            np.concatenate([self.scores[:kept], steps[1:]]),
            np.concatenate([self._conformal[:kept], p_values]),
        )

    @property
    def n(self) -> int:
        """How many normal events were scored."""
        return int(self._at_least[0])

    @property
    def smallest_rate(self) -> float:
        """The smallest flag rate that n events bear out: 1 / (n + 1)."""
        return 1 / (self.n + 1)

    @property
    def reach(self) -> float:
        """The smallest p-value that it gives: the smallest rate, or what a fitted tail reaches."""
        return float(self.steps[1][-1])

    def p_values(self, scores: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Return the p-value of each of `scores`, of any shape; one of a NaN means nothing."""
        steps, p_values_at = self.steps
        first_at_least = np.searchsorted(steps, np.asarray(scores, np.float32), side="left")
        p_values: npt.NDArray[np.float64] = p_values_at[first_at_least]
        return p_values

    def threshold(self, target_flag_rate: float) -> float:
        """Return the score above which an event is flagged.

        Raises:
            ValueError: the rate is not below 1, or below `reach`.
        """
        if not self.reach <= target_flag_rate < 1:
            raise ValueError(
                f"a flag rate of {target_flag_rate:g} is not within {self.reach:.3g} to 1, which "
                f"{self.n:,} calibration scores support"
            )
        steps, p_values = self.steps
        return float(steps[np.flatnonzero(p_values[:-1] > target_flag_rate)[-1]])

    def flagged_max(self, rate: float) -> int:
        """Return the largest k with k / (n + 1) <= rate, by the division that p-values use."""
        k = int(rate * (self.n + 1))
        while (k + 1) / (self.n + 1) <= rate:
            k += 1
        while k / (self.n + 1) > rate:
            k -= 1
        return k

    def p_value_above(self, score: float) -> float:
        """Return the p-value of the next float32 above a score, which leaves out ties with it."""
        with np.errstate(over="ignore"):  # The largest has infinity after it.
            above = np.nextafter(np.float32(score), np.float32(np.inf))
        return float(self.p_values(above[None])[0])

    def threshold_complaints(self, rate: float, threshold: float) -> Iterator[str]:
        """Yield why `threshold` is not that of the rate."""
        if not self.reach <= rate < 1:
            yield f"{self.n:,} calibration scores cannot support a rate of {rate:g}"
        elif self.threshold(rate) != threshold:
            yield f"the threshold is {threshold!r}; its rule gives {self.threshold(rate)!r}"

    def complaints(self) -> Iterator[str]:
        """Yield what contradicts itself; what follows a complaint may not be so."""
        stored = len(self.values)
        if not stored or stored % 4 or len(self.counts or self.values) != stored:
            yield "the calibration's lengths differ"
        if not np.isfinite(self.scores).all() or (np.diff(self.scores) < 0).any():
            yield "calibration scores are not finite and ascending"
        if self.counts is not None and not np.frombuffer(self.counts, "<u4").all():
            yield "a calibration score counts for nothing"
        if self.tail is not msgspec.UNSET:
            yield from self.tail.complaints()
            values, p_values = self.tail.steps
            above = int(self._at_least[np.searchsorted(self.scores, values[0], side="right")])
            if values[0] not in self.scores or p_values[0] != (above + 1) / (self.n + 1):
                yield "the tail does not begin at a calibration score, with the p-value above it"
            if self.tail.excesses != above:
                yield f"the tail is of {self.tail.excesses:,} excesses; {above:,} scores lie above"
