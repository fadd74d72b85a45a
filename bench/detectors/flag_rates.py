"""Does the threshold keep its promise? Flag rates of fresh normal events against their targets.

A sealed model is calibrated on rows that it was not fitted to; the normal rows of the test have
been seen by nobody. On a shuffled split both are the same kind of rows, so that chance alone may
tell them apart, within the band of `trainer.bands`. On the file-order split what the band does
not explain is drift: the second half of the file is not like the first.

Of every outcome more than one rate can be told, for the calibration scores are kept: a row is
flagged at a rate if its p-value is at most that. A rate below 1 / (n + 1) is out of n's reach.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from statistics import fmean
from typing import NamedTuple

import numpy as np

from bench.detectors.trials import Outcome
from schemas.calibration import Calibration
from trainer.bands import Band, flag_count_band, kolmogorov_smirnov

RATES = (0.01, 0.001)
CONFIDENCE = 0.99
DRAWS = 500


class Kept(NamedTuple):
    """What became of one target rate on one outcome.

    `reachable` is k / (n + 1), the largest rate that n calibration events can set without going
    beyond the target; `redrawn` the mean of the realised rates over draws of the calibration set.
    """

    of: str
    split: int
    seed: int
    rate: float
    reachable: float
    calibration_events: int
    fresh: int
    flagged: int
    band: Band
    redrawn: float

    @property
    def inside(self) -> bool:
        return self.band.holds(self.flagged)


class Uniform(NamedTuple):
    """How far the p-values of fresh normal events are from uniform, and the chance of that."""

    of: str
    split: int
    seed: int
    distance: float
    chance: float


def kept(outcomes: Sequence[Outcome], rate: float) -> list[Kept]:
    """Return what became of a rate on each outcome that can support it, by one detector.

    The bands hold for all of them at once.
    """
    able = [one for one in outcomes if 1 / (len(one.calibration_scores()) + 1) <= rate]
    return [_kept(one, rate, len(able)) for one in able]


def uniform(outcomes: Sequence[Outcome]) -> list[Uniform]:
    """Return how far p-values are from uniform on each outcome, by one detector."""
    found = [
        (one, kolmogorov_smirnov(one.calibration_scores(), one.scores_of(0))) for one in outcomes
    ]
    return [Uniform(one.of, one.split, one.seed, *distance) for one, distance in found]


@cache  # Asked for by the table and by the JSON.
def redrawn(outcome: Outcome, rate: float, draws: int = DRAWS) -> float:
    """Return the mean flag rate when chance deals out calibration and fresh rows anew.

    Nothing is fitted again: the scores of both are put together, and each draw calibrates on as
    many of them as before and counts flags among the others.
    """
    calibration, fresh = outcome.calibration_scores(), outcome.scores_of(0)
    pool = np.concatenate([calibration, fresh]).astype(np.float32)
    rng = np.random.default_rng(0)
    rates = []
    for _ in range(draws):
        dealt = rng.permutation(pool)
        threshold = Calibration.of(dealt[: len(calibration)]).threshold(rate)
        rates.append(float((dealt[len(calibration) :] > np.float32(threshold)).mean()))
    return fmean(rates)


def _kept(outcome: Outcome, rate: float, tests: int) -> Kept:
    calibration = Calibration.of(outcome.calibration_scores())
    fresh = outcome.scores_of(0)
    k = calibration.flagged_max(rate)
    return Kept(
        of=outcome.of,
        split=outcome.split,
        seed=outcome.seed,
        rate=rate,
        reachable=k / (calibration.n + 1),
        calibration_events=calibration.n,
        fresh=len(fresh),
        flagged=int((calibration.p_values(fresh) <= rate).sum()),
        band=flag_count_band(k, calibration.n, len(fresh), confidence=CONFIDENCE, tests=tests),
        redrawn=redrawn(outcome, rate),
    )
