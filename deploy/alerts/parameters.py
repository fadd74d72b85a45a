"""The times and thresholds of all alert rules, in one place.

The rules are one text with these numbers put in, so that a test that has only a minute uses the
very rules that a team uses, with shorter times.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass


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

    def with_changes(self, changes: dict[str, str]) -> Parameters:
        """Return these parameters with some of them replaced, each read from its text.

        Raises:
            ValueError: there is no such parameter, or its text is no such value.
        """
        kinds = {field.name: type(getattr(self, field.name)) for field in dataclasses.fields(self)}
        if unknown := changes.keys() - kinds.keys():
            raise ValueError(
                f"{', '.join(sorted(unknown))}: not a parameter; wanted of {', '.join(kinds)}"
            )
        read = {name: kinds[name](text) for name, text in changes.items()}
        return dataclasses.replace(self, **read)
