"""Bands: do they hold what they say, by enumeration, by simulation and by known values?"""

from __future__ import annotations

from math import comb, isclose

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.calibration import Calibration
from trainer.bands import (
    binomial_interval,
    flag_count_band,
    flag_count_chances,
    kolmogorov_smirnov,
)


@st.composite
def sizes(draw):
    """k, n, m of a calibration and a test."""
    n = draw(st.integers(1, 200))
    return draw(st.integers(1, n)), n, draw(st.integers(1, 200))


@given(sizes())
def test_chances_are_those_of_counting_the_orders(of):
    """Each order of n + m scores is as likely: count those with x tests above the k-th largest."""
    k, n, m = of
    counted = [
        comb(x + k - 1, x) * comb(m - x + n - k, m - x) / comb(n + m, m) for x in range(m + 1)
    ]
    assert flag_count_chances(k, n, m) == pytest.approx(counted, rel=1e-9, abs=1e-300)


@given(sizes())
def test_the_mean_rate_is_k_in_n_plus_one(of):
    k, n, m = of
    mean = float(flag_count_chances(k, n, m) @ np.arange(m + 1))
    assert isclose(mean, m * k / (n + 1), rel_tol=1e-9)


def test_large_samples_neither_overflow_nor_lose_their_mass():
    chances = flag_count_chances(200, 200_000, 1_000_000)
    assert chances.sum() == pytest.approx(1)
    assert float(chances @ np.arange(1_000_001)) == pytest.approx(1_000_000 * 200 / 200_001)


def test_the_band_holds_as_often_as_it_says():
    """Calibrated thresholds and fresh counts, drawn with the rule that the worker uses."""
    rng = np.random.default_rng(0)
    n, m, rate, runs = 400, 300, 0.02, 4_000
    k = int(rate * (n + 1))
    band = flag_count_band(k, n, m, confidence=0.9)
    held = 0
    for _ in range(runs):
        calibration = Calibration.of(rng.normal(size=n))
        fresh = rng.normal(size=m).astype(np.float32)
        held += band.holds(int((fresh > np.float32(calibration.threshold(rate))).sum()))
    chances = flag_count_chances(k, n, m)
    exactly = chances[int(band.low) : int(band.high) + 1].sum()
    assert exactly >= 0.9
    assert held / runs == pytest.approx(exactly, abs=4 * (0.1 / runs) ** 0.5)


def test_a_band_is_the_narrowest_and_wider_for_many_tests_at_once():
    chances = flag_count_chances(10, 1_000, 5_000)
    band = flag_count_band(10, 1_000, 5_000)
    low, high = int(band.low), int(band.high)
    assert chances[:low].sum() <= 0.005 < chances[: low + 1].sum()
    assert chances[high + 1 :].sum() <= 0.005 < chances[high:].sum()
    wider = flag_count_band(10, 1_000, 5_000, tests=20)
    assert wider.low < low
    assert wider.high > high


def test_a_binomial_band_would_refuse_honest_work():
    """With few calibration events the threshold's own chance is the larger part."""
    share = binomial_interval(50, 5_000, confidence=0.99)
    band = flag_count_band(10, 1_000, 5_000)
    assert band.high > 1.4 * share.high * 5_000


@pytest.mark.parametrize(
    ("count", "trials", "low", "high"),
    [
        (10, 100, 0.049005, 0.176223),  # Tables of the exact 95 % interval.
        (0, 30, 0.0, 1 - 0.025 ** (1 / 30)),
        (30, 30, 0.025 ** (1 / 30), 1.0),
        (5, 26_150, 6.2085e-5, 4.46148e-4),
    ],
)
def test_the_binomial_interval_is_the_exact_one(count, trials, low, high):
    band = binomial_interval(count, trials)
    assert band.low == pytest.approx(low, rel=1e-4)
    assert band.high == pytest.approx(high, rel=1e-4)


def test_p_values_of_the_same_kind_of_events_pass_as_often_as_they_should():
    rng = np.random.default_rng(1)
    chances = [
        kolmogorov_smirnov(rng.normal(size=150), rng.normal(size=400)).chance for _ in range(2_000)
    ]
    for level in (0.05, 0.2, 0.5):
        below = np.mean(np.array(chances) <= level)
        assert below == pytest.approx(level, abs=0.04)


def test_drifted_events_are_told_apart():
    rng = np.random.default_rng(2)
    calibration, fresh = rng.normal(size=300), rng.normal(0.5, size=300)
    apart = kolmogorov_smirnov(calibration, fresh)
    assert apart.chance < 1e-3
    assert 0.1 < apart.largest < 0.4
    assert kolmogorov_smirnov(calibration, calibration) == (0, 1)


@pytest.mark.parametrize(("k", "n", "m"), [(0, 10, 5), (11, 10, 5), (1, 10, 0)])
def test_what_no_calibration_can_give_is_refused(k, n, m):
    with pytest.raises(ValueError, match="wanted 1 <= k <= n and m >= 1"):
        flag_count_chances(k, n, m)


def test_a_count_beyond_the_trials_and_a_confidence_of_one_are_refused():
    with pytest.raises(ValueError, match="wanted a count within"):
        binomial_interval(3, 2)
    with pytest.raises(ValueError, match="wanted 0 < confidence < 1"):
        binomial_interval(1, 2, confidence=1.0)
    with pytest.raises(ValueError, match="at least one score"):
        kolmogorov_smirnov(np.array([]), np.array([1.0]))
