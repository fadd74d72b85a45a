"""The metrics of the current model, and of what it flags.

All that is said of one model changes at once: no scrape sees two, or none in between.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

import numpy as np
from msgspec import UNSET
from prometheus_client import CollectorRegistry

from schemas.calibration import Calibration
from schemas.contract import Contract
from schemas.false_alarms import flag_rate
from worker import declared_model as declared
from worker.declared_model import OTHERS
from worker.drift import labels_of
from worker.metric import Asked, Series
from worker.model import Model
from worker.turn import Tally

_LABEL_CHARS_MAX = 100
_SIGMAS_OF_90_PERCENT = 3.29  # The width of the middle nine tenths of a normal distribution.


class ExpectedRate(NamedTuple):
    """The share of normal events that a model flags: its mean and its standard deviation, over
    calibrations as large as this one was."""

    mean: float
    stddev: float


class ModelMetrics:
    """Written by the worker's thread, read by the scrape's."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._loads = declared.MODEL_LOADS.counter(registry)
        self._file_refused = declared.MODEL_FILE_REFUSED.gauge(registry)
        self._p_values = declared.P_VALUE.histogram(registry)
        self._expected = declared.EXPECTED_FALSE_ALARMS.counter(registry)
        self._labels: Mapping[str, str] = {}  # Of the current model's features that have their own.
        self._flagged: Mapping[str, int] = {}  # By label; new each time, for the scrape's thread.
        self._rate = 0.0
        self._of_contract: Sequence[Series] = ()
        self._of_session: Sequence[Series] = ()
        metrics = (
            declared.MODEL_INFO,
            declared.FALLBACK,
            declared.MODEL_CREATED,
            declared.MODEL_LOADED,
            declared.TARGET_RATE,
            declared.EXPECTED_RATE,
            declared.EXPECTED_RATE_SD,
            declared.CALIBRATION_EVENTS,
        )
        Asked(registry, metrics, lambda: [*self._of_session, *self._of_contract])
        Asked(
            registry,
            (declared.FLAGGED,),
            lambda: [Series(declared.FLAGGED, n, (label,)) for label, n in self._flagged.items()],
        )

    def judged(self, tally: Tally) -> None:
        """Count what became of a turn's events; once it is acknowledged."""
        self._p_values.observe_all(tally.p_values)
        self._expected.inc(self._rate * len(tally.p_values))
        if tally.flagged_by:
            flagged = dict(self._flagged)
            for name, events in tally.flagged_by.items():
                # The turn may be of the model before, and of features that this one has not.
                label = self._labels.get(name, OTHERS)
                flagged[label] = flagged.get(label, 0) + events
            self._flagged = flagged

    def load(self, outcome: str, current: Model, now: float) -> None:
        """Count a load, and say which model is current after it; `now` is epoch seconds."""
        self._loads.labels(outcome).inc()
        self._file_refused.set(outcome == "refused")
        if outcome != "accepted":
            return
        contract = current.contract
        expected = expected_rate(contract)
        created = _epoch_s(contract.created_at)
        self._rate = expected.mean
        self._labels = labels_of(contract)
        shown = [*self._labels.values()]
        if len(shown) < len(contract.features):
            shown.append(OTHERS)
        self._flagged = {label: self._flagged.get(label, 0) for label in shown}
        self._of_contract = [
            *([] if created is None else [Series(declared.MODEL_CREATED, created)]),
            Series(declared.MODEL_LOADED, now),
            Series(declared.TARGET_RATE, contract.threshold.target_flag_rate),
            Series(declared.EXPECTED_RATE, expected.mean),
            Series(declared.EXPECTED_RATE_SD, expected.stddev),
            Series(declared.CALIBRATION_EVENTS, _events(contract)),
        ]
        self.scores_with(current)

    def scores_with(self, current: Model) -> None:
        """Say which model scores, and where."""
        seen = current.reference
        texts = (seen.name, seen.version, seen.digest, current.provider)
        info = [text[:_LABEL_CHARS_MAX] for text in texts]
        self._of_session = [
            Series(declared.MODEL_INFO, 1, info),
            Series(declared.FALLBACK, current.fell_back),
        ]


def expected_rate(contract: Contract) -> ExpectedRate:
    """Return what a contract's calibration makes of normal events.

    k - 1 of n calibration events above the threshold make the rate Beta(k, n + 1 - k); a tail's
    standard deviation is that of a normal distribution with its nine tenths. Groups count by their
    calibration events, as if events came from them in the same proportions.
    """
    target = contract.threshold.target_flag_rate
    calibrations = contract.calibrations
    if len(calibrations) == 1:
        return _rate(calibrations[0], target)
    rates = np.array([_rate(calibration, target) for calibration in calibrations])
    weights = np.array([calibration.n for calibration in calibrations], np.float64)
    weights /= weights.sum()
    return ExpectedRate(float(weights @ rates[:, 0]), float(np.linalg.norm(weights * rates[:, 1])))


def _rate(calibration: Calibration, target: float) -> ExpectedRate:
    if calibration.tail is not UNSET and target < calibration.smallest_rate:
        rate = flag_rate(calibration, target)
        return ExpectedRate(rate.mean, (rate.high - rate.low) / _SIGMAS_OF_90_PERCENT)
    # A score just above the threshold has the p-value k / (n + 1), with ties left out of k.
    mean, n = calibration.p_value_above(calibration.threshold(target)), calibration.n
    return ExpectedRate(mean, math.sqrt(mean * (1 - mean) / (n + 2)))


def _events(contract: Contract) -> int:
    groups = contract.groups
    if groups is UNSET or groups.pooled != "others":
        return contract.calibration.n
    return contract.calibration.n + sum(member.calibration.n for member in groups.members)


def _epoch_s(created_at: str) -> float | None:
    """Return a contract's time as epoch seconds; None for what is no time, which it may say."""
    try:
        return datetime.fromisoformat(created_at).timestamp()
    except ValueError:
        return None
