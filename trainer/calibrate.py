"""The threshold: which flag rate the data can support, and where that rate lies.

Pure. The conformal rule itself is `schemas.calibration`; here is the policy around it.

A rate that was asked for is met or refused, never bent. With none asked for, 0.001 is tried and
then the larger ones of a short ladder, because few people know what rate they want and a small
data set supports no small one. To support a rate the calibration part grows, up to 40 % of the
rows: beyond that the network would be starved to please the threshold.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from schemas.calibration import Calibration, Floats
from schemas.contract import Threshold
from schemas.errors import DataError, SettingsError

DEFAULT_FLAG_RATES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05)
CALIBRATE_SHARE = 0.2
CALIBRATE_SHARE_MAX = 0.4


@dataclass(frozen=True)
class CalibrationPlan:
    """How many rows calibrate, and for which rate. `requested` is None if none was asked for."""

    target_flag_rate: float
    requested: float | None
    events: int


def events_needed(rate: float) -> int:
    """Return the smallest number n of calibration events with 1 / (n + 1) <= rate."""
    n = max(1, math.floor(1 / rate) - 1)
    while 1 / (n + 1) > rate:
        n += 1
    return n


def rows_needed(rate: float) -> int:
    """Return how many rows it takes in all, for `events_needed` to be among the most allowed."""
    rows = math.floor(events_needed(rate) / CALIBRATE_SHARE_MAX)
    while math.floor(rows * CALIBRATE_SHARE_MAX) < events_needed(rate):
        rows += 1
    return rows


def plan_calibration(rows: int, requested: float | None) -> CalibrationPlan:
    """Choose the flag rate and the number of calibration events for a data set of `rows`.

    Raises:
        SettingsError: the requested rate needs more rows.
        DataError: no rate of the ladder is within reach.
    """
    most = math.floor(rows * CALIBRATE_SHARE_MAX)
    rates: Sequence[float] = DEFAULT_FLAG_RATES if requested is None else (requested,)
    for rate in rates:
        if events_needed(rate) <= most:
            usual = math.floor(rows * CALIBRATE_SHARE)
            return CalibrationPlan(rate, requested, max(usual, events_needed(rate)))
    easiest = rates[-1]
    saw = (
        f"{rows:,} usable row(s), of which at most {most:,} calibrate; a flag rate of {easiest:g} "
        f"takes {events_needed(easiest):,} calibration events, {rows_needed(easiest):,} rows in all"
    )
    if requested is None:
        raise DataError(f"too few rows: {saw}. Nothing was trained; bring more normal events")
    supported = [f"{rate:g}" for rate in DEFAULT_FLAG_RATES if events_needed(rate) <= most]
    way_out = (
        f"ask for {supported[0]} or more" if supported else "nothing smaller than 0.05 will do"
    )
    raise SettingsError(
        f"--target-flag-rate {requested:g} is out of reach: {saw}. Nothing was trained; bring "
        f"more normal events, or {way_out}"
    )


def calibrate(scores: Floats, plan: CalibrationPlan) -> tuple[Calibration, Threshold]:
    """Return the calibration and the threshold from held-out normal scores of the graph.

    Raises:
        DataError: too few of the events have a score, as happens if what they hold is constant
            among the fit rows.
    """
    scored = scores[np.isfinite(scores)]
    if len(scored) < events_needed(plan.target_flag_rate):
        raise DataError(
            f"{len(scored):,} of {len(scores):,} calibration events hold a feature that varies "
            f"among the fit rows; a flag rate of {plan.target_flag_rate:g} takes "
            f"{events_needed(plan.target_flag_rate):,}. Nothing was sealed; bring more normal "
            "events whose features vary"
        )
    calibration = Calibration.of(scored)
    threshold = Threshold(
        value=calibration.threshold(plan.target_flag_rate),
        target_flag_rate=plan.target_flag_rate,
        requested_flag_rate=plan.requested,
    )
    return calibration, threshold


def false_alarms(calibration: Calibration, rate: float) -> str:
    """Return what a target flag rate means, in false alarms.

    With k of n calibration events at or above the threshold, the flag rate on new normal events
    is distributed as Beta(k, n + 1 - k), whose mean is k / (n + 1), if scores do not tie (Vovk,
    Conditional validity of inductive conformal predictors, 2013). The quantiles come from draws
    of a fixed seed: good to the digits that are shown.
    """
    k, n = calibration.flagged_max(rate), calibration.n
    draws = np.random.default_rng(0).beta(k, n + 1 - k, 200_000)
    low, high = (float(quantile) * 1e6 for quantile in np.quantile(draws, [0.05, 0.95]))
    return (
        f"about {k / (n + 1) * 1e6:,.0f} false alarms per million normal events ({k:,} in "
        f"{n + 1:,}); with nine chances in ten, as far as {n:,} calibration events can tell, "
        f"{_rounded(low, high - low)} to {_rounded(high, high - low)}"
    )


def _rounded(number: float, spread: float) -> str:
    """Return `number` to two digits of itself, or of `spread` where that shows more."""
    last = math.floor(math.log10(min(number, spread))) - 1
    return f"{round(number, -last):,.{max(0, -last)}f}"
