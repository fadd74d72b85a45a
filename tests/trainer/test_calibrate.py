from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import DataError, SettingsError
from trainer.bands import flag_count_band, kolmogorov_smirnov
from trainer.calibrate import (
    CALIBRATE_SHARE,
    CALIBRATE_SHARE_MAX,
    DEFAULT_FLAG_RATES,
    CalibrationPlan,
    calibrate,
    events_needed,
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


@given(st.integers(60, 200_000), st.sampled_from(DEFAULT_FLAG_RATES))
def test_the_calibration_events_make_use_of_the_whole_rate(rows, rate):
    if math.floor(rows * CALIBRATE_SHARE_MAX) < events_needed(rate):
        return

    events = plan_calibration(rows, rate).events

    flagged = math.floor(rate * (events + 1) * (1 + 1e-9))
    assert 0.999 * rate < flagged / (events + 1) <= rate * (1 + 1e-9)
    assert events <= max(rows * CALIBRATE_SHARE, events_needed(rate))


@pytest.mark.parametrize(
    ("rows", "rate", "events"),
    [
        (100_000, 0.001, 19_999),
        (4_995, 0.001, 999),
        (2_498, 0.001, 999),
        (2_497, 0.002, 499),
        (1_000, 0.005, 199),
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


@pytest.mark.parametrize(("events", "rate", "draws"), [(999, 0.001, 12_000), (999, 0.01, 3_000)])
def test_the_mean_realised_rate_is_within_5_percent_of_the_target(events, rate, draws):
    """Each calibration is drawn anew; its realised rate is known exactly."""
    rng = np.random.default_rng(5)
    plan = CalibrationPlan(rate, rate, events)
    thresholds = [calibrate(rng.random(events, np.float32), plan)[1].value for _ in range(draws)]

    assert 1 - np.mean(thresholds) == pytest.approx(rate, rel=0.05)


def test_p_values_of_fresh_normal_events_are_uniform():
    """As uniform as two samples of one distribution are; not so once the events have moved."""
    rng = np.random.default_rng(6)
    calibration = calibrate(rng.chisquare(5, 4_000), CalibrationPlan(0.01, 0.01, 4_000))[0]
    fresh, moved = rng.chisquare(5, 20_000), 1.1 * rng.chisquare(5, 20_000)

    assert kolmogorov_smirnov(calibration.scores, fresh).chance > 0.05
    assert kolmogorov_smirnov(calibration.scores, moved).chance < 1e-4
    p_values = calibration.p_values(fresh)
    for share in (0.001, 0.01, 0.1, 0.5, 0.9):
        band = flag_count_band(calibration.flagged_max(share), 4_000, 20_000, tests=5)
        assert band.holds(float((p_values <= share).sum()))


def test_an_extrapolation_is_planned_only_where_it_is_asked_for_and_needed():
    assert plan_calibration(10_000, 1e-5, extrapolate=True) == CalibrationPlan(
        1e-5, 1e-5, 4_000, extrapolates=True
    )
    assert plan_calibration(10_000, 0.001, extrapolate=True) == CalibrationPlan(0.001, 0.001, 1_999)
    # As many as a tail can use, and the usual share if that is more.
    assert plan_calibration(400_000, 1e-6, extrapolate=True).events == 100_000
    assert plan_calibration(1_000_000, 1e-7, extrapolate=True).events == 200_000


def test_a_rate_that_a_tail_would_reach_is_refused_with_the_way_to_it():
    with pytest.raises(SettingsError, match=r"or ask for 0\.001 or more, or --extrapolate to it"):
        plan_calibration(10_000, 1e-5)
    with pytest.raises(
        SettingsError, match=r"more \(to extrapolate takes 9,999 calibration events"
    ):
        plan_calibration(10_000, 1e-6, extrapolate=True)
    with pytest.raises(
        SettingsError, match=r"more \(to extrapolate takes 2,000 calibration events"
    ):
        plan_calibration(4_999, 1e-4, extrapolate=True)


def test_an_extrapolation_to_no_rate_is_refused():
    with pytest.raises(SettingsError, match="wanted --target-flag-rate beside it"):
        plan_calibration(10_000, None, extrapolate=True)


def test_an_extrapolated_threshold_says_so_and_lies_beyond_all_scores():
    scores = np.random.default_rng(0).exponential(size=4_000)

    calibration, threshold = calibrate(scores, CalibrationPlan(1e-5, 1e-5, 4_000, True))

    assert threshold.rule == "generalised_pareto"
    assert threshold.extrapolates
    assert threshold.value > calibration.scores[-1]
    assert calibration.p_values(np.nextafter(np.float32(threshold.value), np.float32(99))) == 1e-5


def test_events_without_a_score_do_not_calibrate_and_must_leave_enough():
    scores = np.append(np.arange(99, dtype=np.float32), np.float32(np.nan))

    assert calibrate(scores, CalibrationPlan(0.01, None, 100))[0].n == 99
    with pytest.raises(DataError, match="98 of 99 calibration events hold a feature that varies"):
        calibrate(scores[1:], CalibrationPlan(0.01, None, 99))
