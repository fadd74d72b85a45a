"""Threshold and p-value are two views of one rule, ties and rounding included."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec.structs import replace

from schemas import calibration as module
from schemas.calibration import Calibration, Tail

# Few distinct values, so that ties are common; and any float32 beside them.
TIED = st.integers(0, 5).map(float)
ANY = st.floats(width=32, allow_nan=False, allow_infinity=False)
SCORES = st.lists(TIED | ANY, min_size=1, max_size=60)
RATES = st.floats(1e-4, 0.999) | st.sampled_from([0.001, 0.01, 0.05, 0.1, 0.2, 0.5])


@given(SCORES, SCORES, RATES)
def test_a_score_above_the_threshold_is_a_p_value_within_the_rate(held_out, scores, rate):
    calibration = Calibration.of(held_out)
    assume(calibration.smallest_rate <= rate)
    threshold = calibration.threshold(rate)
    # The calibration scores themselves and their neighbours are where ties matter.
    seen = np.array([*scores, *held_out], np.float32)
    seen = np.concatenate(
        [seen, np.nextafter(seen, np.finfo(np.float32).max), [np.float32(threshold)]]
    )
    p_values = calibration.p_values(seen)
    np.testing.assert_array_equal(seen > np.float32(threshold), p_values <= rate)


@given(SCORES, st.integers(1, 60))
def test_it_also_agrees_at_rates_that_are_exactly_a_p_value(held_out, k):
    calibration = Calibration.of(held_out)
    n = calibration.n
    assume(k <= n)
    rate = k / (n + 1)
    threshold = calibration.threshold(rate)
    assert threshold == sorted(calibration.scores, reverse=True)[k - 1]
    seen = calibration.scores
    np.testing.assert_array_equal(seen > np.float32(threshold), calibration.p_values(seen) <= rate)


@given(SCORES, SCORES)
def test_the_p_value_is_its_definition(held_out, scores):
    calibration = Calibration.of(held_out)
    stored = np.array(held_out, np.float32)
    for score in np.array(scores, np.float32):
        wanted = (1 + int((stored >= score).sum())) / (len(stored) + 1)
        assert float(calibration.p_values(score)) == wanted


@given(SCORES, SCORES)
def test_higher_scores_have_no_higher_p_values_and_none_is_zero(held_out, scores):
    p_values = Calibration.of(held_out).p_values(np.sort(np.array(scores, np.float32)))
    assert (np.diff(p_values) <= 0).all()
    assert p_values.min() >= 1 / (len(held_out) + 1)
    assert p_values.max() <= 1


@given(SCORES, st.floats(1e-9, 2))
def test_a_rate_that_the_sample_cannot_support_is_refused(held_out, rate):
    calibration = Calibration.of(held_out)
    if calibration.smallest_rate <= rate < 1:
        assert calibration.threshold(rate) in calibration.scores
    else:
        with pytest.raises(ValueError, match=r"is not within .* to 1, which .* scores support"):
            calibration.threshold(rate)


@st.composite
def extrapolating(draw) -> Calibration:
    """A calibration with any tail that the format allows."""
    calibration = Calibration.of(draw(SCORES))
    level = draw(st.sampled_from(calibration.scores.tolist()))
    beyond = draw(st.lists(ANY.filter(lambda score: score > level), max_size=9, unique=True))
    with np.errstate(over="ignore"):  # The largest float32 has infinity after it.
        after = np.nextafter(np.float32(level), np.float32(np.inf))
    lower = float(calibration.p_values(after))
    p_values = st.floats(1e-300, lower, exclude_max=True)
    falling = draw(st.lists(p_values, min_size=len(beyond), max_size=len(beyond), unique=True))
    tail = Tail(
        values=np.array([level, *sorted(beyond)], "<f4").tobytes(),
        p_values=np.array([lower, *sorted(falling, reverse=True)], "<f8").tobytes(),
        excesses=int((calibration.scores > np.float32(level)).sum()),
        scale="score",
        shape=0.0,
        fit_p_value=0.5,
        flag_rate_low=0.0,
        flag_rate_high=0.1,
    )
    return replace(calibration, tail=tail)


@given(extrapolating(), SCORES, st.data())
def test_beyond_the_calibration_a_tail_keeps_threshold_and_p_value_together(
    calibration, scores, data
):
    assert not list(calibration.complaints())
    steps, p_values = calibration.tail.steps
    given = data.draw(st.sampled_from(p_values.tolist()) | st.floats(calibration.reach, 0.999))
    assume(calibration.reach <= given < 1)
    threshold = np.float32(calibration.threshold(given))
    largest = np.finfo(np.float32).max
    seen = np.array([*scores, *calibration.scores, *steps, threshold, -largest], np.float32)
    seen = np.concatenate([seen, np.nextafter(seen, largest), [largest, np.inf]])
    np.testing.assert_array_equal(seen > threshold, calibration.p_values(seen) <= given)


@given(extrapolating(), SCORES)
def test_a_tail_changes_no_p_value_up_to_its_level_and_none_rises(calibration, scores):
    level = calibration.tail.steps[0][0]
    seen = np.sort(np.array([*scores, *calibration.scores], np.float32))
    p_values = calibration.p_values(seen)
    body = seen <= level
    conformal = replace(calibration, tail=msgspec.UNSET).p_values(seen)
    np.testing.assert_array_equal(p_values[body], conformal[body])
    assert (np.diff(p_values) <= 0).all()
    assert p_values.min() >= calibration.reach > 0


def test_each_step_of_a_tail_holds_above_its_value_and_up_to_the_next():
    calibration = replace(
        Calibration.of([1, 2, 3]),
        tail=Tail(
            values=np.array([2, 4, 8], "<f4").tobytes(),
            p_values=np.array([0.5, 0.1, 0.01], "<f8").tobytes(),
            excesses=1,
            scale="score",
            shape=0.0,
            fit_p_value=0.5,
            flag_rate_low=0.0,
            flag_rate_high=0.1,
        ),
    )
    assert calibration.p_values([1, 2, 3, 4, 5, 8, 9]).tolist() == [
        1.0, 0.75, 0.5, 0.5, 0.1, 0.1, 0.01,
    ]  # fmt: skip
    assert (calibration.threshold(0.1), calibration.threshold(0.05)) == (4, 8)
    assert (calibration.smallest_rate, calibration.reach) == (0.25, 0.01)


@pytest.fixture(scope="module")
def many() -> np.ndarray:
    """More scores than are stored whole, with a heavy tail and with ties."""
    scores = np.random.default_rng(1).pareto(1.5, module.STORED_WHOLE_MAX + 12_345)
    scores[::3] = np.round(scores[::3], 1)
    return scores.astype(np.float32)


def test_a_set_that_is_not_stored_whole_never_gives_a_smaller_p_value(many):
    stored = Calibration.of(many)
    assert stored.counts is not None
    assert stored.n == len(many)
    assert len(stored.scores) == module.STORED_EXACT_TOP + module.STORED_GRID
    whole = Calibration(values=np.sort(many).astype("<f4").tobytes())
    grid = np.concatenate([many[::7], np.nextafter(many[::11], np.float32(np.inf))])
    seen, exact = stored.p_values(grid), whole.p_values(grid)
    assert (seen >= exact).all()
    assert (seen - exact).max() < 1e-3
    top = np.sort(many)[-module.STORED_EXACT_TOP :]
    np.testing.assert_array_equal(stored.p_values(top), whole.p_values(top))


@pytest.mark.parametrize("rate", [1e-4, 0.001, 0.01, 0.05, 0.2])
def test_the_thresholds_in_use_are_exact_in_a_set_that_is_not_stored_whole(many, rate):
    whole = Calibration(values=np.sort(many).astype("<f4").tobytes())
    assert Calibration.of(many).threshold(rate) == whole.threshold(rate)


@pytest.mark.parametrize("rate", [0.3, 0.6, 0.97])
def test_threshold_and_p_value_agree_below_the_exact_top_too(many, rate):
    stored = Calibration.of(many)
    threshold = np.float32(stored.threshold(rate))
    seen = np.concatenate([many[::5], [threshold], [np.nextafter(threshold, np.float32(np.inf))]])
    np.testing.assert_array_equal(seen > threshold, stored.p_values(seen) <= rate)


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.2])
def test_no_more_than_the_target_of_normal_events_is_flagged(rate):
    """On exchangeable data, over many calibration sets: E[flagged] = k / (n + 1) <= rate."""
    rng = np.random.default_rng(7)
    n, sets, fresh = 199, 500, 200
    flagged = [
        (rng.lognormal(size=fresh).astype(np.float32) > np.float32(c.threshold(rate))).mean()
        for c in (Calibration.of(rng.lognormal(size=n)) for _ in range(sets))
    ]
    # The standard error over sets: a set's own rate is Beta distributed around its mean.
    error = np.sqrt(rate * (1 - rate) * (1 / n + 1 / fresh) / sets)
    assert abs(np.mean(flagged) - rate) < 4 * error


@pytest.mark.parametrize("scores", [[], [np.nan], [1.0, np.inf], [1e39]])
def test_a_set_that_is_empty_or_not_finite_is_refused(scores):
    with (
        pytest.raises(ValueError, match="at least one score, all of them finite"),
        np.errstate(over="ignore"),
    ):
        Calibration.of(scores)


def test_scores_of_any_shape_keep_it():
    assert Calibration.of([1, 2, 3]).p_values(np.zeros((2, 3))).shape == (2, 3)
