"""The times and thresholds of all alert rules, in one place.

The rules are one text with these numbers put in, so that a test that has only a minute uses the
very rules that a team uses, with shorter times.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# Where a bound is not 0 below (for a window: 1 s), and none above.
_LEAST = {"flag_factor": 1.0, "latency_quantile": 0.01}
_MOST = {
    "latency_quantile": 0.9999,
    # The histogram's last bound: quantiles beyond it are told as it.
    "latency_objective_s": 3_599.0,
    "bad_share": 0.9999,
}


@dataclass(frozen=True)
class Parameters:
    """What a team may want otherwise. `_s` are whole seconds; shares lie between 0 and 1."""

    # Which scrape targets the rules watch, and where their runbook is read.
    job: str = "odradek-worker"
    runbook: str = "docs/runbook.md"

    # A container that is gone vanishes from discovery: only a number that is written down tells.
    workers_expected: int = 1
    workers_missing_for_s: int = 120
    # What comes and goes, a rate near its limit or a worker that ends again and again, is one alert
    # if it is away for no longer than this.
    keep_firing_s: int = 300
    # Together longer than the longest silence that is in order on the topic. The window has to hold
    # two scrapes; the rest is waited for, so that a Prometheus that has just begun does not take
    # its own youth for a silence.
    quiet_window_s: int = 300
    quiet_for_s: int = 300
    held_for_s: int = 60
    unready_for_s: int = 300

    lag_window_s: int = 600
    lag_records_min: int = 10_000  # A smaller lag is nobody's concern, growing or not.
    lag_growth_per_s: float = 1.0  # A slope is never exactly 0.
    lag_for_s: int = 600
    stalled_window_s: int = 600
    # Behind the last record of a transaction lies its mark, which counts as lag.
    stalled_records_min: int = 10
    stalled_for_s: int = 300
    latency_objective_s: float = 5.0
    latency_quantile: float = 0.99
    latency_window_s: int = 300
    latency_events_min: int = 10  # One late event of a quiet topic is no incident.
    latency_for_s: int = 300

    # Records that are not as they should be: so many in the window, and such a share of all.
    bad_window_s: int = 900
    bad_share: float = 0.01
    bad_records_min: int = 10  # One bad record of a quiet topic is no incident.
    bad_for_s: int = 120
    commit_window_s: int = 300
    commits_failed_min: int = 3  # A rebalance fails one now and then, and it is asked for again.
    commit_for_s: int = 300
    restart_window_s: int = 900
    restarts_max: int = 2
    restart_for_s: int = 60
    lost_window_s: int = 900
    lost_for_s: int = 30

    flag_window_s: int = 3_600
    # What matters: the observed rate is so many times the target, or so many times smaller.
    flag_factor: float = 2.0
    # And what chance does not explain: exp(-14) is below one look in a million, after the
    # calibration's own uncertainty of so many standard deviations. See `detection.py`.
    flag_surprise_nats: float = 14.0
    flag_calibration_sigmas: float = 3.5
    flag_for_s: int = 300
    # PSI: from 0.25 on the field's convention speaks of a major shift.
    drift_psi: float = 0.25
    drift_for_s: int = 900
    # With 100 calibration events the p-values of one honest model in 180 have an index above 0.25.
    drift_calibration_min: int = 150
    refused_for_s: int = 60
    model_age_max_s: int = 30 * 86_400
    model_age_for_s: int = 300
    fallback_for_s: int = 60

    def __post_init__(self) -> None:
        """Refuse what would make a rule that never fires, always does, or cannot be read.

        Raises:
            ValueError: a value is out of its bounds.
        """
        for name, kind in _kinds(self).items():
            value = getattr(self, name)
            if kind is str:
                if not value or set(value) & set('"\\\n'):
                    raise ValueError(f"{name} is {value!r}; wanted a text without quotes")
                continue
            low = 1 if name.endswith("_window_s") else _LEAST.get(name, 0)
            high = _MOST.get(name, math.inf)
            if not (low <= value <= high and math.isfinite(value)):
                raise ValueError(f"{name} is {value:g}; wanted {low:g} to {high:g}")

    def with_changes(self, changes: Sequence[str]) -> Parameters:
        """Return these parameters with some of them replaced, each as NAME=VALUE.

        Raises:
            ValueError: there is no such parameter, or the text is no such value.
        """
        kinds = _kinds(self)
        read: dict[str, Any] = {}
        for change in changes:
            name, equals, text = change.partition("=")
            if name not in kinds:
                raise ValueError(f"{name}: not a parameter; wanted of {', '.join(kinds)}")
            if not equals:
                raise ValueError(f"{change}: no value; wanted {name}=VALUE")
            try:
                read[name] = kinds[name](text)
            except ValueError:
                number = "a whole number" if kinds[name] is int else "a number"
                raise ValueError(f"{name} is {text!r}; wanted {number}") from None
        return dataclasses.replace(self, **read)


def _kinds(parameters: Parameters) -> dict[str, type]:
    return {each.name: type(each.default) for each in dataclasses.fields(parameters)}
