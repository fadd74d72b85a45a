"""A flag rate in false alarms: the right interval, in digits that tell."""

from __future__ import annotations

import math

import numpy as np
import pytest
from msgspec.structs import replace

from schemas.calibration import Calibration, Tail
from schemas.false_alarms import by_group, describe_tail, flag_rate, per_day, per_million
from schemas.groups import Group
from tests.schemas.golden_records import GROUPED


def test_a_flag_rate_is_told_in_false_alarms():
    calibration = Calibration.of(np.arange(999))

    text = per_million(calibration, 0.001)

    # Beta(1, 999): its 5 % and 95 % quantiles are 1 - .95^(1/999) and 1 - .05^(1/999).
    low, high = (1e6 * (1 - q ** (1 / 999)) for q in (0.95, 0.05))
    assert (math.floor(low), math.floor(high)) == (51, 2994)
    assert text == (
        "about 1,000 false alarms per million normal events (1 in 1,000); with nine chances in "
        "ten, as far as 999 calibration events can tell, 51 to 3,000"
    )


@pytest.mark.parametrize(
    ("n", "rate", "said"),
    [
        # 3 / 301, and not the 10,000 that were asked for.
        (300, 0.01, "about 9,967 false alarms per million normal events (3 in 301)"),
        # 0.3 * 10 is 2.9999999999999996 in floating point, and the rule's own division says 3.
        (9, 0.3, "(3 in 10)"),
        # The interval is narrower than two digits of its ends: 1,000 * 1.645 * .4 / sqrt(n).
        (199_999, 0.2, "198,500 to 201,500"),
        (49_999, 0.0002, "(10 in 50,000)"),
    ],
)
def test_false_alarms_are_those_of_the_threshold_in_digits_that_tell(n, rate, said):
    calibration = Calibration.of(np.arange(n))

    assert said in per_million(calibration, rate)


def test_a_day_of_events_has_so_many_false_alarms():
    assert per_day(Calibration.of(np.arange(999)), 0.001, 2_000) == (
        "about 173,000 false alarms a day at 2,000 normal events a second; with nine chances in "
        "ten 8,900 to 520,000"
    )


@pytest.mark.parametrize(
    ("events_per_second", "said"),
    [
        (1, "about 86.4 false alarms a day at 1 normal"),
        (0.1, "about 8.64 false alarms a day at 0.1 normal"),
        (1e-5, "about 0.000864 false alarms a day at 1e-05 normal"),
    ],
)
def test_few_false_alarms_are_not_rounded_to_none(events_per_second, said):
    assert said in per_day(Calibration.of(np.arange(999)), 0.001, events_per_second)


TAIL = Tail(
    values=np.array([900, 2000], "<f4").tobytes(),
    p_values=np.array([0.05, 1e-5], "<f8").tobytes(),
    excesses=100,
    scale="log_score",
    shape=-0.1234,
    fit_p_value=0.455,
    flag_rate_low=1e-9,
    flag_rate_high=4e-5,
)


def test_an_extrapolation_is_called_one():
    calibration = replace(Calibration.of(np.arange(999)), tail=TAIL)

    assert flag_rate(calibration, 1e-5) == (1e-5, 1e-9, 4e-5)
    assert per_million(calibration, 1e-5) == (
        "about 10 false alarms per million normal events, by extrapolation (999 calibration "
        "events bear out no rate below 0.001); with nine chances in ten 0 to 40, if the tail goes "
        "on as it was fitted"
    )
    assert "about 1,730 false alarms a day" in per_day(calibration, 1e-5, 2_000)
    assert describe_tail(TAIL) == (
        "an extrapolation: generalised Pareto tail of shape -0.12 on the logarithms of the scores "
        "of the highest 100 calibration events (Anderson-Darling p = 0.46)"
    )


@pytest.mark.parametrize(("events", "said"), [((199, 199), "199"), ((199, 399), "199 to 399")])
def test_groups_of_equally_many_events_are_told_one_number(events, said):
    calibrations = [Calibration.of(np.arange(n)) for n in events]
    members = tuple(
        Group(text=str(place), threshold=one.threshold(0.01), calibration=one)
        for place, one in enumerate(calibrations)
    )

    first = next(by_group(replace(GROUPED.groups, members=members), 0.01, None))

    assert f", from {said} calibration events: about" in first
