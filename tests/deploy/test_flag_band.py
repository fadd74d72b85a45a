"""How often the alerts on the flag rate fire by chance: computed exactly, look by look.

The rules' steps are written here a second time, and PromQL's are held against them.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from deploy.alerts.parameters import Parameters
from deploy.alerts.rules import rule_file
from tests.deploy.detection_cases import flags
from tests.deploy.promtool import a_test, judge
from tests.deploy.test_alerts import RULES
from trainer.bands import flag_count_chances

P = Parameters()
NAMES = ("OdradekFlagRateHigh", "OdradekFlagRateLow")
MINUTES = 60  # Of the rules' window.
EVENTS = (100, 1_000, 10_000, 100_000, 1_000_000)


def rate_of(k: int, n: int) -> tuple[float, float]:
    """Mean and standard deviation of Beta(k, n + 1 - k), as the worker exports them."""
    mean = k / (n + 1)
    return mean, math.sqrt(mean * (1 - mean) / (n + 2))


def surprises(
    k: int, n: int, events: int, flagged: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """For each count flagged, 0..events if none is given: what the rule above, and the rule below,
    hold against `flag_surprise_nats`; 0 where the count does not matter.

    The same steps as in `deploy/alerts/detection.py`, with a target of k / (n + 1).
    """
    mean, stddev = rate_of(k, n)
    half = P.flag_calibration_sigmas / 2 * stddev / math.sqrt(mean)
    flagged = np.arange(events + 1.0) if flagged is None else flagged

    def surprise(expected: float) -> np.ndarray:
        expected = max(expected, 1e-9)
        logs = np.log(np.maximum(flagged, 1e-9) / expected)
        return flagged * logs - flagged + expected

    high = events * (math.sqrt(mean) + half) ** 2
    low = events * max(math.sqrt(mean) - half, 0) ** 2
    above = (flagged > high) & (flagged > P.flag_factor * events * mean)
    below = (flagged < low) & (flagged < events * mean / P.flag_factor)
    return above * surprise(high), below * surprise(low)


def fires(k: int, n: int, events: int) -> tuple[np.ndarray, np.ndarray]:
    above, below = surprises(k, n, events)
    return above > P.flag_surprise_nats, below > P.flag_surprise_nats


def chances(k: int, n: int, events: int) -> tuple[float, float]:
    """The chances that a look at so many normal events is a false alarm, above and below."""
    of_count = flag_count_chances(k, n, events)
    above, below = fires(k, n, events)
    return float(of_count[above].sum()), float(of_count[below].sum())


def test_promql_takes_the_same_steps(tmp_path: Path):
    """Every count a minute, of events of which some are flagged, for each size of calibration."""
    tests, matters = [], 0
    for k, n in ((1, 999), (20, 199), (100, 9_999), (650, 65_000)):
        for flagged, events in ((0, 1), (0, 1_000), (1, 30), (3, 100), (40, 100), (700, 10_000)):
            mean, stddev = rate_of(k, n)
            series = flags(
                f"0+{events - flagged}x120", f"0+{flagged}x120", rate=mean, stddev=stddev
            )
            counts = (n, MINUTES * events, np.array([float(MINUTES * flagged)]))
            values = [float(value[0]) for value in surprises(k, *counts)]
            matters += sum(value > 0 for value in values)
            expected = [
                {
                    "expr": f"round({RULES[name].operand}, 0.001)",
                    "eval_time": "90m",
                    "exp_samples": [
                        {"labels": "{}", "value": math.floor(value * 1_000 + 0.5) / 1_000}
                    ],
                }
                for name, value in zip(NAMES, values, strict=True)
            ]
            tests.append(a_test(series, P.job, promql_expr_test=expected))
    both = [RULES[name] for name in NAMES]
    assert judge(tmp_path, rule_file(P, both), tests) == ""
    assert 10 < matters < 2 * len(tests)  # Some are surprises, some are none.


@pytest.mark.parametrize(("k", "n"), [(1, 999), (10, 9_999), (20, 199)])
def test_a_small_calibration_makes_few_false_alarms_whatever_the_volume(k: int, n: int):
    """What chance there is belongs to the model, not to the look: its threshold was off."""
    assert max(max(chances(k, n, events)) for events in EVENTS) < 6e-4


@pytest.mark.parametrize(("k", "n"), [(100, 9_999), (1_000, 99_999), (650, 65_000)])
def test_an_ordinary_calibration_makes_next_to_none(k: int, n: int):
    assert max(max(chances(k, n, events)) for events in EVENTS) < 2e-8


def test_a_rate_three_times_the_target_is_seen_within_the_hour_at_ten_events_a_second():
    above, _ = fires(100, 9_999, 36_000)
    assert above[3 * 360]
    assert not above[360]


def test_silence_is_seen_where_enough_flags_were_to_be_expected():
    assert fires(100, 9_999, 3_600)[1][0]
    assert not fires(100, 9_999, 360)[1][0]
