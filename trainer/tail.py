"""The tail: p-values beyond the highest calibration scores, by a generalised Pareto distribution.

Far enough out, the excesses over a level of nearly any distribution follow a generalised Pareto
distribution (Balkema and de Haan, Annals of Probability 2, 1974; Pickands, Annals of Statistics 3,
1975). It is fitted to the k scores above the (k + 1)-th highest, on the score or, where that does
not fit, on its logarithm:

    P(excess > x) = (1 + b x) ** (-1 / shape),    b = shape / scale.

**Not the best parameters, but all of them, weighed.** Putting estimates into the formula flags too
many: with 160 excesses and a rate of a thousandth of theirs, twice the target in the mean. So the
p-value is the predictive one under the prior 1 / scale, flat in the shape, whose mean realised
rate is the target's to within some 5 % (such priors: Northrop and Attalides, Statistica Sinica
26, 2016). Given b, the integral over the shape has a closed form,

    P(excess > x | b) = (1 + log(1 + b x) / S) ** (1 - k),    S = sum of log(1 + b excess),

and b, Grimshaw's parameter (Technometrics 35, 1993), has the posterior density
(b / S) ** (k - 1) * exp(-S); one sum over a grid of b is left. Exponential tails (b = 0) are no
special case of it, nor are those with an end point (b < 0).

**The fit is checked** by the statistic of Anderson and Darling, as Choulakian and Stephens
(Technometrics 43, 2001) do, its distribution by a parametric bootstrap that fits every sample
anew. A poor fit and too few excesses are refused. It cannot see beyond the scores: where they come
to their tail slowly, mean realised rates from a sixth of the target to three times it were seen.

The result is a table of steps (`schemas.calibration.Tail`): a worker computes no logarithms, and
verdict and p-value agree to the last bit on every machine. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from schemas.calibration import Calibration, Tail, TailScale
from schemas.errors import DataError

Array = npt.NDArray[np.float64]

# Fewer events have too few excesses to tell a tail from the bulk.
EVENTS_MIN = 2_000
# More add no excesses, which then cost more time than they are worth.
EVENTS_MAX = 100_000
_EXCESSES_MIN = 100
_EXCESSES_MAX = 2_000
# How far it reaches: to one hundredth of 1 / (n + 1). There, the flag rate may be five times its
# mean (one chance in twenty), with 2,000 exponential scores, four times with 100,000.
REACH = 100

_FIT_P_VALUE_MIN = 0.05  # At three levels: one good tail in six is refused.
_BOOTSTRAPS = 199
_LEVELS = 512  # Steps of the p-value: each some two per cent below the one before.
_NODES = 33
_HALVINGS = 60
_LOG_MAX = 500.0  # An excess e ** 500 times the largest seen is beyond any float32.
_FLAT = 1e-7  # Below it, b is 0 to the digits of a sum.


def fit_tail(calibration: Calibration, rate: float) -> Tail:
    """Return the tail of the calibration scores, with a step exactly at `rate`.

    Raises:
        DataError: there are too few scores, no tail fits them, or it does not reach the rate.
    """
    tried: list[str] = []
    for level, excesses, scale in _candidates(calibration):
        fit = min(_fit_p_value(higher) for higher in _over_higher_levels(excesses))
        if fit >= _FIT_P_VALUE_MIN:
            posterior = Posterior.of(excesses[None])
            return _tabulate(calibration, level, scale, posterior, fit, rate)
        logarithms = "the logarithms of " if scale == "log_score" else ""
        tried.append(f"p = {fit:.2g} for {logarithms}the {len(excesses):,} highest")
    raise DataError(
        f"no tail fits the highest of {calibration.n:,} calibration scores: "
        + (
            f"tests of the fit gave {', '.join(tried)}; wanted {_FIT_P_VALUE_MIN:g} or more"
            if tried
            else f"too many are the same. Where a tail would begin, fewer than {_EXCESSES_MIN} "
            "lie above the score; wanted so many"
        )
        + f". A rate below {calibration.smallest_rate:.3g} has no ground then. Nothing was sealed; "
        "bring more normal events, or ask for that rate or more without --extrapolate"
    )


def events_for_tail(rate: float) -> int:
    """Return the smallest number of calibration events from which a tail may reach this rate."""
    n = max(EVENTS_MIN, math.floor(1 / (REACH * rate)) - 1)
    while 1 / (REACH * (n + 1)) > rate:
        n += 1
    return n


def _candidates(calibration: Calibration) -> Iterator[tuple[np.float32, Array, TailScale]]:
    """Yield levels of the score, the excesses over each, ascending, and their scale.

    There are about n ** (2 / 3) excesses, a share that shrinks as n grows, as it must for the tail
    to come out: a thirteenth of 2,000, a fiftieth of 100,000.
    """
    most = min(round(calibration.n ** (2 / 3)), _EXCESSES_MAX)
    for count in (most, most // 2):
        level = calibration.scores[-count - 1]
        above = calibration.scores[calibration.scores > level].astype(np.float64)
        if len(above) >= _EXCESSES_MIN:
            yield level, above - float(level), "score"
            if level > 0:
                yield level, np.log(above / float(level)), "log_score"


def _over_higher_levels(excesses: Array) -> list[Array]:
    """Return the excesses, and those of their upper half and quarter over the next one below.

    What is generalised Pareto over a level is so over each higher one. A level in the bulk may pass
    by itself: on collision events, where one event in thirty is reconstructed far worse than all
    others, it did six times in ten, and no fresh event reached the threshold.
    """
    upper = [len(excesses) // parts for parts in (2, 4)]
    return [excesses, *(excesses[-count:] - excesses[-count - 1] for count in upper)]


@dataclass(frozen=True)
class Posterior:
    """What samples of excesses, ascending, float64 [samples, k], say of their parameters.

    By sample: the grid of b times the largest excess, and its weights, which add up to 1, both
    [samples, nodes]; and `slopes` S / b there, in units of the largest excess.
    """

    excesses: Array
    grid: Array
    slopes: Array
    weights: Array

    @classmethod
    def of(cls, excesses: Array) -> Posterior:
        """Weigh the parameters; the grid closes in on where the weight is."""
        scaled = excesses / excesses[:, -1:]
        count = excesses.shape[1]
        # By log(1 + b x) of the largest excess: from a near end point to the heaviest of tails.
        grid = np.repeat(np.linspace(-6.0, 25.0, _NODES)[None], len(scaled), axis=0)
        for closing_in in (True, True, True, False):
            slopes = _slopes(np.expm1(grid), scaled)
            logs = grid - (count - 1) * np.log(slopes) - slopes * np.expm1(grid)
            weights = np.exp(logs - logs.max(axis=1, keepdims=True))
            weights /= weights.sum(axis=1, keepdims=True)
            if closing_in:
                mean = (weights * grid).sum(axis=1, keepdims=True)
                deviation = np.sqrt((weights * (grid - mean) ** 2).sum(axis=1, keepdims=True))
                deviation = np.maximum(deviation, grid[:, 1:2] - grid[:, :1])
                grid = mean + np.linspace(-6.0, 6.0, _NODES) * deviation
        return cls(excesses, np.expm1(grid), slopes, weights)

    def estimate(self) -> tuple[Array, Array]:
        """Return b times the largest excess, and S / b in its units, by sample: [samples, 1]."""
        mean = (self.weights * np.log1p(self.grid)).sum(axis=1, keepdims=True)
        b = np.expm1(mean)
        return b, _slopes(b, self.excesses / self.excesses[:, -1:])

    def beyond(self, excess: Array) -> Array:
        """Return, by sample, the chance of more than each `excess`, both [samples, m]."""
        k = self.excesses.shape[1]
        rise = _rise(self.grid[:, :, None], (excess / self.excesses[:, -1:])[:, None])
        chances = (1 + rise / self.slopes[:, :, None]) ** (1 - k)
        averages: Array = (chances * self.weights[:, :, None]).sum(axis=1)
        return averages

    def quantiles(self, chances: Array) -> Array:
        """Return, by sample, the excesses with these chances of more, both [samples, m].

        Rounded up; infinite where they lie beyond any number.
        """
        largest = self.excesses[:, -1:]
        low, high = np.zeros(chances.shape), np.full(chances.shape, _LOG_MAX)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            more = self.beyond(largest * np.expm1(middle)) > chances
            low, high = np.where(more, middle, low), np.where(more, high, middle)
        return np.where(high < _LOG_MAX, largest * np.expm1(high), np.inf)


def _rise(b: Array, x: Array) -> Array:
    """Return log(1 + b x) / b; infinite at the end point and beyond it."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.abs(b) < _FLAT, x, np.log1p(np.maximum(b * x, -1.0)) / b)


def _slopes(b: Array, scaled: Array) -> Array:
    """Return the sum over [samples, k] of log(1 + b x) / b for each b of [samples, nodes]."""
    columns = [_rise(column[:, None], scaled).sum(axis=1) for column in b.T]
    return np.stack(columns, axis=1)


def _anderson_darling(posterior: Posterior) -> Array:
    """Return the statistic of each sample, [samples], at its estimate."""
    k = posterior.excesses.shape[1]
    b, slope = posterior.estimate()
    hazard = k * _rise(b, posterior.excesses / posterior.excesses[:, -1:]) / slope
    with np.errstate(divide="ignore"):
        below = np.log(-np.expm1(-hazard))
    ranks = 2 * np.arange(1, k + 1) - 1
    statistics: Array = -k - (ranks * (below - hazard[:, ::-1])).mean(axis=1)
    return statistics


def _fit_p_value(excesses: Array) -> float:
    """Return how many samples of the fitted distribution fit no better; the seed is fixed."""
    if excesses[0] <= 0:
        return 0.0  # Scores tie at this level: they are no continuous distribution's.
    posterior = Posterior.of(excesses[None])
    seen = _anderson_darling(posterior)[0]
    b, slope = posterior.estimate()
    k = len(excesses)
    shape = float(b[0, 0] * slope[0, 0] / k)
    drawn = np.random.default_rng(0).exponential(size=(_BOOTSTRAPS, k))
    samples = np.sort(drawn if abs(shape) < _FLAT else np.expm1(shape * drawn) / shape, axis=1)
    again = _anderson_darling(Posterior.of(samples))
    return float((1 + (again >= seen).sum()) / (1 + _BOOTSTRAPS))


def _tabulate(
    calibration: Calibration,
    level: np.float32,
    scale: TailScale,
    posterior: Posterior,
    fit: float,
    rate: float,
) -> Tail:
    """Return the tail as steps, a score's p-value never smaller than the formula's."""
    n, count = calibration.n, posterior.excesses.shape[1]
    # The chance of an excess: the (k + 1)-th highest of n is exceeded so often in the mean.
    share = (count + 1) / (n + 1)
    rates = np.geomspace(share, 1 / (REACH * (n + 1)), _LEVELS)
    rates = np.unique(np.append(rates[rates != rate], rate))[::-1]
    excesses = posterior.quantiles(rates[None, 1:] / share)[0]
    with np.errstate(over="ignore", invalid="ignore"):
        beyond = float(level) * np.exp(excesses) if scale == "log_score" else level + excesses
        # The next float32 up: where the formula's p-value has surely fallen that far.
        scores = np.append(level, np.nextafter(beyond.astype(np.float32), np.float32(np.inf)))
        # Of steps that are one float32, the last holds; what lies beyond any float32 is dropped.
        kept = np.isfinite(scores) & (np.append(np.diff(scores), 1.0) > 0)
    if not kept[rates == rate].all() and not (rates[kept] < rate).any():
        raise DataError(
            f"the threshold for a rate of {rate:g} would lie beyond any 32-bit score. Nothing was "
            "sealed; ask for a larger rate"
        )
    b, slope = posterior.estimate()
    low, high = _realised_rates(posterior, float(excesses[rates[1:] == rate][0]), n)
    return Tail(
        values=scores[kept].astype("<f4").tobytes(),
        p_values=rates[kept].astype("<f8").tobytes(),
        excesses=count,
        scale=scale,
        shape=round(float(b[0, 0] * slope[0, 0] / count), 4),
        fit_p_value=fit,
        flag_rate_low=low,
        flag_rate_high=high,
    )


def _realised_rates(posterior: Posterior, excess: float, n: int) -> tuple[float, float]:
    """Return between which flag rates a threshold at this excess lies, with nine chances in ten.

    By draws of all that is uncertain, from a fixed seed: good to the digits that are shown.
    """
    k = posterior.excesses.shape[1]
    rng, draws = np.random.default_rng(0), 100_000
    nodes = rng.choice(_NODES, draws, p=posterior.weights[0])
    rise = _rise(posterior.grid[0], np.array([[excess / posterior.excesses[0, -1]]]))[0]
    hazard = rng.gamma(k - 1, 1.0, draws) * (rise / posterior.slopes[0])[nodes]
    rates = rng.beta(k + 1, n - k, draws) * np.exp(-hazard)
    low, high = np.quantile(rates, [0.05, 0.95])
    return float(low), float(high)
