"""The tail: calibrated in the mean, checked for its fit, and one with its own threshold."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from schemas.calibration import Calibration
from schemas.errors import DataError
from trainer.__main__ import main
from trainer.calibrate import CalibrationPlan, calibrate
from trainer.narrate import say_what_was_made
from trainer.tail import EVENTS_MIN, REACH, Posterior, events_for_tail, fit_tail

EVENTS = 2_000
RATE = 0.1 / (EVENTS + 1)
LARGEST = np.finfo(np.float32).max


def pareto(shape, size, rng):
    """Draw from a generalised Pareto distribution of scale 1."""
    drawn = rng.exponential(size=size)
    return np.expm1(shape * drawn) / shape if shape else drawn


def beyond(shape, x):
    """Return the chance that such a draw exceeds x."""
    return np.maximum(1 + shape * x, 0) ** (-1 / shape) if shape else np.exp(-x)


def extrapolated(scores, rate):
    calibration = Calibration.of(scores)
    return replace(calibration, tail=fit_tail(calibration, rate))


SCORES = {
    "with an end point": lambda rng: rng.beta(2, 3, EVENTS),
    "uniform": lambda rng: rng.random(EVENTS),
    "exponential": lambda rng: rng.exponential(size=EVENTS),
    "a mean of squares": lambda rng: rng.chisquare(8, EVENTS) / 8,
    "log-normal": lambda rng: rng.lognormal(size=EVENTS),
    "without a mean": lambda rng: rng.standard_cauchy(EVENTS) ** 2,
    "near the largest float": lambda rng: rng.exponential(size=EVENTS) * 2e37,
    "near the smallest float": lambda rng: rng.exponential(size=EVENTS) * 1e-36,
    "below zero": lambda rng: rng.normal(-100, 1, EVENTS),
}


@pytest.fixture(scope="module", params=SCORES)
def fitted(request):
    """The calibration of the first draw that the fit check lets pass."""
    for seed in range(5):
        try:
            return extrapolated(SCORES[request.param](np.random.default_rng(seed)), RATE)
        except DataError:
            continue
    raise AssertionError(f"no tail was fitted to five draws of scores {request.param}")


def test_a_score_above_the_threshold_is_a_p_value_within_the_rate(fitted):
    steps, p_values = fitted.tail.steps
    seen = np.concatenate([fitted.scores, steps, [0, LARGEST, -LARGEST]]).astype(np.float32)
    seen = np.concatenate([seen, np.nextafter(seen, LARGEST), np.nextafter(seen, -LARGEST)])

    for rate in (RATE, *p_values[::100], 0.001, 0.01, 0.1):
        flagged = seen > np.float32(fitted.threshold(rate))
        assert (flagged == (fitted.p_values(seen) <= rate)).all()
        assert flagged.any()


@settings(max_examples=30)
@given(st.data())
def test_it_does_so_at_any_score_and_rate(fitted, data):
    score = np.float32(data.draw(st.floats(width=32, allow_nan=False)))
    rate = data.draw(st.floats(fitted.reach, 0.9))

    flagged = score > np.float32(fitted.threshold(rate))
    assert flagged == (float(fitted.p_values(score)) <= rate)


def test_the_table_has_a_step_at_the_rate_and_is_consistent(fitted):
    steps, p_values = fitted.tail.steps

    assert not list(fitted.complaints())
    assert RATE in p_values
    assert fitted.reach == 1 / (REACH * (EVENTS + 1)) or steps[-1] > 0.95 * LARGEST
    assert p_values[0] == (fitted.tail.excesses + 1) / (EVENTS + 1)
    assert (fitted.scores > steps[0]).sum() == fitted.tail.excesses
    assert fitted.tail.flag_rate_low < RATE < fitted.tail.flag_rate_high


def test_scores_in_another_unit_have_the_same_p_values():
    scores = np.random.default_rng(0).exponential(size=EVENTS).astype(np.float32)
    one, other = extrapolated(scores, RATE), extrapolated(scores * 1024, RATE)

    assert other.threshold(RATE) == pytest.approx(1024 * one.threshold(RATE), rel=1e-6)
    assert one.tail.shape == other.tail.shape


def test_the_predictive_chance_is_the_average_over_all_parameters():
    """By brute force over scale and shape, with the prior 1 / scale."""
    excesses = np.sort(pareto(0.2, 100, np.random.default_rng(3)))
    shape, log_scale = np.meshgrid(np.linspace(-0.6, 1.4, 600), np.linspace(-1.5, 1.5, 600))
    scale = np.exp(log_scale)
    inside = 1 + shape * excesses[-1] / scale > 0
    logs = np.full(shape.shape, -np.inf)
    logs[inside] = -100 * log_scale[inside]
    for x in excesses:
        logs[inside] -= (1 + 1 / shape[inside]) * np.log1p(shape[inside] * x / scale[inside])
    weights = np.exp(logs - logs.max())

    for x in (0.5, 5.0, 20.0, 80.0):
        with np.errstate(divide="ignore"):
            chance = np.maximum(1 + shape * x / scale, 0) ** (-1 / shape)
        wanted = float((weights * chance).sum() / weights.sum())
        seen = float(Posterior.of(excesses[None]).beyond(np.array([[x]]))[0, 0])
        assert seen == pytest.approx(wanted, rel=0.01)


@pytest.mark.parametrize("shape", [-0.3, 0.0, 0.3, 0.8])
def test_the_mean_realised_rate_is_within_5_percent_of_the_target(shape):
    """Over calibration draws; what the best parameters alone give is not."""
    rng = np.random.default_rng(11)
    excesses = np.sort(pareto(shape, (2_000, 200), rng), axis=1)
    posterior = Posterior.of(excesses)
    targets = np.array([[0.1, 0.03]])

    found = posterior.quantiles(np.repeat(targets, len(excesses), axis=0))

    realised = beyond(shape, found).mean(axis=0)
    np.testing.assert_allclose(realised, targets[0], rtol=0.05)


def test_the_best_parameters_alone_would_flag_too_many():
    """Why the p-value is an average: the same at a hundredth, where it shows."""
    rng = np.random.default_rng(12)
    posterior = Posterior.of(np.sort(pareto(0.0, (2_000, 100), rng), axis=1))
    b, slope = posterior.estimate()
    shape = b * slope / 100
    by_estimate = (0.01**-shape - 1) / (b / posterior.excesses[:, -1:])
    averaged = posterior.quantiles(np.full((2_000, 1), 0.01))

    assert beyond(0.0, by_estimate).mean() > 1.25 * 0.01
    assert beyond(0.0, averaged).mean() < 1.05 * 0.01


def test_tails_that_fit_are_seldom_refused():
    refused = 0
    for seed in range(15):
        calibration = Calibration.of(np.random.default_rng(seed).exponential(size=EVENTS_MIN))
        try:
            fit_tail(calibration, 0.5 / (EVENTS_MIN + 1))
        except DataError:
            refused += 1
    assert refused <= 4


def clustered(rng):
    scores = rng.exponential(size=EVENTS)
    scores[:60] = rng.normal(100, 1, 60)  # Another kind of event, far out.
    return scores


@pytest.mark.parametrize(
    ("scores", "why"),
    [
        (clustered, r"gave p = 0\.0\d+ for the 159 highest, p = .* highest; wanted 0\.05 or more"),
        (lambda rng: rng.poisson(20, EVENTS), "tests of the fit gave p = "),
        (lambda rng: rng.exponential(size=EVENTS).clip(max=3.2), "for the 159 highest"),
        (lambda rng: rng.integers(0, 2, EVENTS), "too many are the same"),
        (lambda _: np.ones(EVENTS), "fewer than 100 lie above the score; wanted"),
    ],
)
def test_a_tail_that_does_not_fit_is_refused(scores, why):
    with pytest.raises(DataError, match=why) as refused:
        extrapolated(scores(np.random.default_rng(0)), RATE)

    assert "A rate below 0.0005 has no ground then. Nothing was sealed" in str(refused.value)


def test_a_threshold_beyond_any_float_is_refused():
    scores = np.exp(np.random.default_rng(0).exponential(9.0, EVENTS))

    with pytest.raises(DataError, match="would lie beyond any 32-bit score"):
        extrapolated(scores[scores < 1e38], RATE)


@given(st.floats(1e-9, 0.5))
def test_the_events_for_a_tail_are_the_fewest_that_reach_the_rate(rate):
    n = events_for_tail(rate)

    assert 1 / (REACH * (n + 1)) <= rate
    assert n == EVENTS_MIN or 1 / (REACH * n) > rate


def test_fit_says_how_far_an_extrapolation_would_reach(normal_csv, tmp_path, capsys):
    asked = ["fit", str(normal_csv), "--out", str(tmp_path / "m.onnx"), "--target-flag-rate"]

    assert main([*asked, "0.0001", "--extrapolate"]) == 2
    assert "(to extrapolate takes 2,000 calibration events)" in capsys.readouterr().err


def test_what_was_extrapolated_is_said_to_be(sealed, tmp_path, capsys):
    scores = np.random.default_rng(0).exponential(size=EVENTS)
    calibration, threshold = calibrate(scores, CalibrationPlan(5e-5, 5e-5, EVENTS, True))
    contract = replace(sealed.contract, calibration=calibration, threshold=threshold)

    say_what_was_made(dataclasses.replace(sealed, contract=contract), tmp_path / "m.onnx", 100)

    *_, first, second, third = capsys.readouterr().out.splitlines()
    assert first.startswith("  about 50 false alarms per million normal events, by extrapolation (")
    assert second.startswith("  about 432 false alarms a day at 100 normal events a second; with")
    assert third.startswith("  an extrapolation: generalised Pareto tail of shape ")
