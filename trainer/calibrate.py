"""The threshold: which flag rate the data can support, and where that rate lies.

Pure. The conformal rule itself is `schemas.calibration`; here is the policy around it.

A rate that was asked for is met or refused, never bent. With none asked for, 0.001 is tried and
then the larger ones of a short ladder, because few people know what rate they want and a small
data set supports no small one. To support a rate the calibration part grows, up to 40 % of the
rows: beyond that the network would be starved to please the threshold.

A rate that no calibration score bears out is refused, unless extrapolation is asked for: then a
tail is fitted (`trainer.tail`), and all that follows from it says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from msgspec.structs import replace

from schemas.calibration import Calibration, Floats
from schemas.contract import Threshold
from schemas.errors import DataError, SettingsError
from trainer.tail import EVENTS_MAX, events_for_tail, fit_tail

DEFAULT_FLAG_RATES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05)
CALIBRATE_SHARE = 0.2
CALIBRATE_SHARE_MAX = 0.4


@dataclass(frozen=True)
class GroupPlan:
    """The groups with a threshold of their own, and how many rows of each calibrate.

    `events` and `rows` are those of the groups `texts`, and, last, of all others together, of
    which there are `shared`, beside rows that name none.
    """

    texts: tuple[str, ...]
    events: tuple[int, ...]
    rows: tuple[int, ...]
    shared: int


@dataclass(frozen=True)
class CalibrationPlan:
    """How many rows calibrate, and for which rate. `requested` is None if none was asked for.

    `extrapolates`: the rate is below 1 / (events + 1), and a tail is to be fitted. `groups`: each
    of them is calibrated by itself (`trainer.groups`).
    """

    target_flag_rate: float
    requested: float | None
    events: int
    extrapolates: bool = False
    groups: GroupPlan | None = None

    @property
    def fewest(self) -> int:
        """How few calibration events the rate takes."""
        if self.extrapolates:
            return events_for_tail(self.target_flag_rate)
        return events_needed(self.target_flag_rate)


def events_needed(rate: float, flagged: int = 1) -> int:
    """Return the smallest number n of calibration events with flagged / (n + 1) <= rate."""
    n = max(1, math.floor(flagged / rate) - 1)
    while flagged / (n + 1) > rate:
        n += 1
    return n


def events_in_full(rate: float, usual: int) -> int:
    """Return how many events, `usual` or as few as half of it, make use of the whole rate.

    The mean flag rate of a conformal threshold is k / (n + 1), k a whole number: of 1,233 events
    and a rate of 0.001 it is 0.00081, of 999 it is 0.001, and the others are better fitted to.
    """
    flagged = math.floor(rate * (usual + 1) * (1 + 1e-9))
    return events_needed(rate, max(1, flagged))


def rows_needed(rate: float) -> int:
    """Return how many rows it takes in all, for `events_needed` to be among the most allowed."""
    rows = math.floor(events_needed(rate) / CALIBRATE_SHARE_MAX)
    while math.floor(rows * CALIBRATE_SHARE_MAX) < events_needed(rate):
        rows += 1
    return rows


def plan_calibration(
    rows: int, requested: float | None, *, extrapolate: bool = False
) -> CalibrationPlan:
    """Choose the flag rate and the number of calibration events for a data set of `rows`.

    `extrapolate`: a requested rate that no calibration score bears out is allowed.

    Raises:
        SettingsError: the requested rate needs more rows, or there is none to extrapolate to.
        DataError: no rate of the ladder is within reach.
    """
    if extrapolate and requested is None:
        raise SettingsError("--extrapolate goes with a rate; wanted --target-flag-rate beside it")
    most = math.floor(rows * CALIBRATE_SHARE_MAX)
    rates: Sequence[float] = DEFAULT_FLAG_RATES if requested is None else (requested,)
    for rate in rates:
        if events_needed(rate) <= most:
            usual = math.floor(rows * CALIBRATE_SHARE)
            return CalibrationPlan(rate, requested, events_in_full(rate, usual))
    reaches = requested is not None and events_for_tail(requested) <= most
    if extrapolate and requested is not None and reaches:
        # A tail is known no better than its excesses are many.
        usual = max(math.floor(rows * CALIBRATE_SHARE), min(most, EVENTS_MAX))
        events = max(usual, events_for_tail(requested))
        return CalibrationPlan(requested, requested, events, extrapolates=True)
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
    if extrapolate:
        way_out += f" (to extrapolate takes {events_for_tail(requested):,} calibration events)"
    elif reaches:
        way_out += ", or --extrapolate to it by a fitted tail, which no event bears out"
    raise SettingsError(
        f"--target-flag-rate {requested:g} is out of reach: {saw}. Nothing was trained; bring "
        f"more normal events, or {way_out}"
    )


def calibrate(scores: Floats, plan: CalibrationPlan) -> tuple[Calibration, Threshold]:
    """Return the calibration and the threshold from held-out normal scores of the graph.

    Raises:
        DataError: too few of the events have a score, as happens if what they hold is constant
            among the fit rows; or a tail was planned, and none fits.
    """
    scored = scores[np.isfinite(scores)]
    if len(scored) < plan.fewest:
        raise DataError(
            f"{len(scored):,} of {len(scores):,} calibration events hold a feature that varies "
            f"among the fit rows; a flag rate of {plan.target_flag_rate:g} takes "
            f"{plan.fewest:,}. Nothing was sealed; bring more normal events whose features vary"
        )
    calibration = Calibration.of(scored)
    if plan.extrapolates:
        tail = fit_tail(calibration, plan.target_flag_rate)
        calibration = replace(calibration, tail=tail)
    threshold = Threshold(
        value=calibration.threshold(plan.target_flag_rate),
        target_flag_rate=plan.target_flag_rate,
        requested_flag_rate=plan.requested,
        rule="generalised_pareto" if plan.extrapolates else "conformal",
    )
    return calibration, threshold
