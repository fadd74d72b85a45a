"""How far an observed rate may stray by chance: exact bands, and a test that p-values are uniform.

A threshold that was calibrated is itself random. With k of n calibration events at or above it,
the flag rate on new normal events is distributed as Beta(k, n + 1 - k) (Vovk, Conditional
validity of inductive conformal predictors, 2013), so that the number flagged among m of them is
beta-binomial:

    P(X = x) = C(x + k - 1, x) C(m - x + n - k, m - x) / C(n + m, m),    x = 0 .. m

(the distribution of exceedances: Gumbel and von Schelling, Annals of Mathematical Statistics 21,
1950; for conformal prediction: Marques, Universal distribution of the empirical coverage in split
conformal prediction, 2025). A band from the binomial distribution alone, which takes the threshold
for given, is too narrow, and refuses honest work. All of this supposes that calibration and new
events are exchangeable and that their scores do not tie; with ties fewer are flagged.

Pure: numpy alone.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Chances = npt.NDArray[np.float64]
Scores = npt.NDArray[np.floating[Any]]

# Beyond it the terms of Kolmogorov's series are below 1e-16 for every distance worth a test.
_SERIES_TERMS = 100
_HALVINGS = 60  # Of an interval in [0, 1]: to the last bit of a float.


class Band(NamedTuple):
    """A range that holds with the confidence asked for; both ends belong to it."""

    low: float
    high: float

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high


class Distance(NamedTuple):
    """How far two samples' distributions lie apart at most, and the chance of that or more."""

    largest: float
    chance: float


def flag_count_chances(flagged_max: int, calibration_events: int, test_events: int) -> Chances:
    """Return the chance of each number, 0 to `test_events`, of normal events flagged.

    `flagged_max` is the k of the module's formula: `Calibration.flagged_max(rate)`.

    Raises:
        ValueError: k is not within 1 to n, or there is no test event.
    """
    k, n, m = flagged_max, calibration_events, test_events
    if not 1 <= k <= n or m < 1:
        raise ValueError(f"k = {k}, n = {n}, m = {m}; wanted 1 <= k <= n and m >= 1")
    x = np.arange(m, dtype=np.float64)
    # The ratio of one chance to the one before it: no factorial, so nothing overflows.
    steps = np.log((x + k) / (x + 1)) + np.log((m - x) / (m - x + n - k))
    logs = np.concatenate([[0.0], np.cumsum(steps)])
    chances: Chances = np.exp(logs - logs.max())
    chances /= chances.sum()
    return chances


def flag_count_band(
    flagged_max: int,
    calibration_events: int,
    test_events: int,
    *,
    confidence: float = 0.99,
    tests: int = 1,
) -> Band:
    """Return the numbers of flagged normal events that chance explains.

    At most (1 - confidence) / 2 lies beyond each end. With several `tests`, all of them hold at
    once with this confidence: Bonferroni's correction, which asks for no independence.

    Raises:
        ValueError: as `flag_count_chances`; a confidence not within 0 to 1; or no test.
    """
    beyond = _each_tail(confidence, tests)
    chances = flag_count_chances(flagged_max, calibration_events, test_events)
    at_most, at_least = np.cumsum(chances), np.cumsum(chances[::-1])[::-1]
    return Band(
        float(np.flatnonzero(at_most > beyond)[0]), float(np.flatnonzero(at_least > beyond)[-1])
    )


def binomial_interval(count: int, trials: int, *, confidence: float = 0.95, tests: int = 1) -> Band:
    """Return the exact interval of a share of which `count` in `trials` were seen.

    Clopper and Pearson, Biometrika 26, 1934: each end is the share that makes what was seen, or
    more of it on that side, as unlikely as (1 - confidence) / 2.

    Raises:
        ValueError: the count is not within 0 to `trials`, or as `flag_count_band`.
    """
    beyond = _each_tail(confidence, tests)
    if not 0 <= count <= trials or trials < 1:
        raise ValueError(f"{count} of {trials}; wanted a count within 0 to trials, of at least 1")
    low = 0.0 if count == 0 else _where_at_most(count - 1, trials, 1 - beyond)
    high = 1.0 if count == trials else _where_at_most(count, trials, beyond)
    return Band(low, high)


def kolmogorov_smirnov(calibration: Scores, fresh: Scores) -> Distance:
    """Compare the scores of calibration events and of fresh normal ones: are p-values uniform?

    A p-value is a rank among the calibration scores, which are themselves a sample. So this is
    the test of two samples, and not that of one against the uniform distribution, which would
    refuse honest work. The chance is Kolmogorov's limit with Stephens' correction for small
    samples (Journal of the Royal Statistical Society B 32, 1970); good from some ten events on.

    Raises:
        ValueError: one of the samples is empty.
    """
    if not len(calibration) or not len(fresh):
        raise ValueError("wanted at least one score of each kind")
    first, second = np.sort(calibration), np.sort(fresh)
    levels = np.concatenate([first, second])
    below_first = np.searchsorted(first, levels, side="right") / len(first)
    below_second = np.searchsorted(second, levels, side="right") / len(second)
    largest = float(np.abs(below_first - below_second).max())
    root = math.sqrt(len(first) * len(second) / (len(first) + len(second)))
    stretched = (root + 0.12 + 0.11 / root) * largest
    if stretched < 0.2:  # The series does not converge at zero; its sum is 1 up to here.
        return Distance(largest, 1.0)
    terms = np.arange(1, _SERIES_TERMS + 1)
    series = 2 * (-1.0) ** (terms - 1) * np.exp(-2 * (terms * stretched) ** 2)
    return Distance(largest, min(1.0, max(0.0, float(series.sum()))))


def _where_at_most(count: int, trials: int, chance: float) -> float:
    """Return the share at which `count` or fewer of `trials` have this chance."""
    x = np.arange(count + 1, dtype=np.float64)
    steps = np.log((trials - x[:-1]) / (x[:-1] + 1))
    choices = np.concatenate([[0.0], np.cumsum(steps)])
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        logs = choices + x * math.log(middle) + (trials - x) * math.log1p(-middle)
        low, high = (middle, high) if np.exp(logs).sum() > chance else (low, middle)
    return (low + high) / 2


def _each_tail(confidence: float, tests: int) -> float:
    if not 0 < confidence < 1 or tests < 1:
        raise ValueError(f"confidence {confidence:g}, tests {tests}; wanted 0 < confidence < 1")
    return (1 - confidence) / 2 / tests
