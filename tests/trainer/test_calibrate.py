from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.calibration import Calibration
from schemas.errors import DataError, SettingsError
from trainer.calibrate import (
    CalibrationPlan,
    calibrate,
    events_needed,
    false_alarms,
    plan_calibration,
    rows_needed,
)


@given(st.floats(1e-6, 0.9))
def test_the_events_needed_are_the_fewest_that_support_the_rate(rate):
    n = events_needed(rate)

    assert 1 / (n + 1) <= rate
    assert n == 1 or 1 / n > rate


@given(st.floats(1e-4, 0.9))
def test_the_rows_needed_are_the_fewest_that_are_not_refused(rate):
    rows = rows_needed(rate)

    assert plan_calibration(rows, rate).target_flag_rate == rate
    with pytest.raises(SettingsError):
        plan_calibration(rows - 1, rate)


@pytest.mark.parametrize(
    ("rows", "rate", "events"),
    [
        (100_000, 0.001, 20_000),
        (4_995, 0.001, 999),
        (2_498, 0.001, 999),
        (2_497, 0.002, 499),
        (1_000, 0.005, 200),
        (400, 0.01, 99),
        (150, 0.02, 49),
        (48, 0.05, 19),
    ],
)
def test_without_a_rate_asked_for_the_smallest_supported_one_is_taken(rows, rate, events):
    assert plan_calibration(rows, None) == CalibrationPlan(rate, None, events)


def test_too_few_rows_for_any_rate_are_refused():
    with pytest.raises(DataError, match=r"47 usable .* takes 19 calibration events, 48 rows"):
        plan_calibration(47, None)


def test_a_rate_out_of_reach_is_refused_with_the_events_it_would_take():
    with pytest.raises(SettingsError) as caught:
        plan_calibration(1_000, 0.0005)

    assert str(caught.value) == (
        "--target-flag-rate 0.0005 is out of reach: 1,000 usable row(s), of which at most 400 "
        "calibrate; a flag rate of 0.0005 takes 1,999 calibration events, 4,998 rows in all. "
        "Nothing was trained; bring more normal events, or ask for 0.005 or more"
    )


def test_a_rate_asked_for_is_recorded_as_asked():
    scores = np.arange(1, 1000, dtype=np.float32)

    calibration, threshold = calibrate(scores, plan_calibration(4_995, 0.01))

    assert threshold.requested_flag_rate == threshold.target_flag_rate == 0.01
    assert (calibration.scores > threshold.value).sum() == 9


@given(
    st.lists(st.floats(0, 100, width=32), min_size=99, max_size=300),
    st.sampled_from([0.01, 0.02, 0.05, 0.3]),
)
def test_the_threshold_and_the_p_values_agree_with_ties(scores, rate):
    calibration, threshold = calibrate(
        np.array(scores, np.float32), CalibrationPlan(rate, rate, len(scores))
    )
    probes = np.unique(np.array([*scores, 0, 1000], np.float32))

    flagged = probes > np.float32(threshold.value)
    assert (flagged == (calibration.p_values(probes) <= rate)).all()


def test_a_flag_rate_is_told_in_false_alarms():
    calibration = Calibration.of(np.arange(999))

    text = false_alarms(calibration, 0.001)

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

    assert said in false_alarms(calibration, rate)


def test_events_without_a_score_do_not_calibrate_and_must_leave_enough():
    scores = np.append(np.arange(99, dtype=np.float32), np.float32(np.nan))

    assert calibrate(scores, CalibrationPlan(0.01, None, 100))[0].n == 99
    with pytest.raises(DataError, match="98 of 99 calibration events hold a feature that varies"):
        calibrate(scores[1:], CalibrationPlan(0.01, None, 99))
