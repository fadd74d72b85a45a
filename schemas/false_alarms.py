"""What a target flag rate means in false alarms, and how surely: for both programs to say.

With k of n calibration events at or above the threshold, the flag rate on new normal events is
distributed as Beta(k, n + 1 - k), whose mean is k / (n + 1), if scores do not tie (Vovk,
Conditional validity of inductive conformal predictors, 2013). Where a tail extrapolates, the mean
is the rate itself, and the interval the tail's own. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import numpy as np

from schemas.calibration import Calibration, Tail
from schemas.groups import Groups

SECONDS_A_DAY = 86_400
_HALVINGS = 60


class FlagRate(NamedTuple):
    """The share of normal events flagged: its mean, and its range with nine chances in ten."""

    mean: float
    low: float
    high: float


def flag_rate(calibration: Calibration, target: float) -> FlagRate:
    """Return the rate on new normal events of the threshold for this target."""
    if calibration.tail is not msgspec.UNSET and target < calibration.smallest_rate:
        return FlagRate(target, calibration.tail.flag_rate_low, calibration.tail.flag_rate_high)
    k, n = calibration.flagged_max(target), calibration.n
    return FlagRate(k / (n + 1), _beta_quantile(k, n, 0.05), _beta_quantile(k, n, 0.95))


def per_million(calibration: Calibration, target: float) -> str:
    """Return a sentence on the false alarms per million normal events."""
    rate, n = flag_rate(calibration, target), calibration.n
    low, high = _range(rate, 1e6)
    if target < calibration.smallest_rate:
        return (
            f"about {_brief(rate.mean * 1e6)} false alarms per million normal events, by "
            f"extrapolation ({n:,} calibration events bear out no rate below "
            f"{calibration.smallest_rate:.2g}); with nine chances in ten {low} to {high}, if the "
            "tail goes on as it was fitted"
        )
    k = calibration.flagged_max(target)
    return (
        f"about {_whole(rate.mean * 1e6)} false alarms per million normal events ({k:,} in "
        f"{n + 1:,}); with nine chances in ten, as far as {n:,} calibration events can tell, "
        f"{low} to {high}"
    )


def per_day(calibration: Calibration, target: float, events_per_second: float) -> str:
    """Return a sentence on the false alarms a day, of so many events a second."""
    rate, events = flag_rate(calibration, target), events_per_second * SECONDS_A_DAY
    low, high = _range(rate, events)
    text = (
        f"about {_brief(rate.mean * events)} false alarms a day at {events_per_second:,.10g} "
        f"normal events a second; with nine chances in ten {low} to {high}"
    )
    return f"{text}, by extrapolation" if target < calibration.smallest_rate else text


def by_group(groups: Groups, target: float, events_per_second: float | None) -> Iterator[str]:
    """Yield sentences on what groups are judged by, and their false alarms."""
    thresholds = [member.threshold for member in groups.members]
    events = [member.calibration.n for member in groups.members]
    rates = [flag_rate(member.calibration, target).mean for member in groups.members]
    low, high = (_whole(rate * 1e6) for rate in (min(rates), max(rates)))
    fewest, most = f"{min(events):,}", f"{max(events):,}"
    yield (
        f"{len(events):,} group(s) of {groups.name!r} have thresholds of their own, "
        f"{min(thresholds):.6g} to {max(thresholds):.6g}, from "
        f"{most if fewest == most else f'{fewest} to {most}'} calibration events: "
        f"about {high if low == high else f'{low} to {high}'} false alarms "
        "per million normal events of each group"
    )
    yield "all others are judged by the pooled one, from " + (
        "calibration events of theirs, and for all of them together the rate holds"
        if groups.pooled == "others"
        else "those of all groups: for lack of their own events nothing is promised of them"
    )
    if events_per_second is not None:
        alarms = max(rates) * events_per_second * SECONDS_A_DAY
        yield (
            f"about {_brief(alarms)} false alarms a day at {events_per_second:,.10g} events a "
            "second of such groups"
        )


def describe_tail(tail: Tail) -> str:
    """Return a sentence on what was fitted to extrapolate."""
    scale = "logarithms of the scores" if tail.scale == "log_score" else "scores"
    return (
        f"an extrapolation: generalised Pareto tail of shape {tail.shape:.2g} on the {scale} of "
        f"the highest {tail.excesses:,} calibration events (Anderson-Darling p = "
        f"{tail.fit_p_value:.2g})"
    )


def _beta_quantile(k: int, n: int, chance: float) -> float:
    """Return the rate below which Beta(k, n + 1 - k) lies with this chance.

    It lies below x as often as n events, each with the chance x, give k or more.
    """
    count = np.arange(k, dtype=np.float64)
    choices = np.append(0.0, np.cumsum(np.log((n - count[:-1]) / (count[:-1] + 1))))
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        fewer = choices + count * math.log(middle) + (n - count) * math.log1p(-middle)
        low, high = (middle, high) if np.exp(fewer).sum() > 1 - chance else (low, middle)
    return high


def _range(rate: FlagRate, events: float) -> tuple[str, str]:
    low, high = rate.low * events, rate.high * events
    return _rounded(low, high - low), _rounded(high, high - low)


def _brief(number: float) -> str:
    """Return a number to three digits, without noughts at its end."""
    digits = 2 - math.floor(math.log10(number))
    text = f"{round(number, digits):,.{max(0, digits)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _whole(number: float) -> str:
    """Return a number without a fraction, or to three digits where it is less than ten."""
    return f"{number:,.0f}" if number >= 10 else _brief(number)


def _rounded(number: float, spread: float) -> str:
    """Return `number` to two digits of itself, or of `spread` where that shows more."""
    if number <= spread / 1000:
        return "0"
    last = math.floor(math.log10(min(number, spread) or number)) - 1
    return f"{round(number, -last):,.{max(0, -last)}f}"
