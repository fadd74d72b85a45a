"""Why the worker holds its turn: it polls and lives on, writes nothing new and commits nothing.

A hold has a reason that somebody must look at. It does not end the process, so that it can be
scraped, and does not loop under an orchestrator.
"""

from __future__ import annotations

import logging
from enum import StrEnum

from worker.health import Health
from worker.logs import fields
from worker.metrics import Metrics

log = logging.getLogger(__name__)


class Hold(StrEnum):
    """What holds the worker. Closed: the metric's label is this."""

    REJECTS = "rejects"  # Almost nothing on the input topic can be scored: the breaker is open.
    OUTPUT = "output"  # An output topic refuses what is written.
    INPUT = "input"  # The input topic is not there.


class Holds:
    """The holds of now. Each change is one log line, a gauge, and what /readyz says."""

    def __init__(self, health: Health, metrics: Metrics) -> None:
        self._health = health
        self._metrics = metrics
        self._why: dict[Hold, str] = {}
        for hold in Hold:
            metrics.held(hold, held=False)

    def __contains__(self, hold: Hold) -> bool:
        return hold in self._why

    def __bool__(self) -> bool:
        return bool(self._why)

    def begin(self, hold: Hold, why: str) -> None:
        """Hold, unless it does already; `why` says what was seen and what to look at."""
        if hold not in self._why:
            log.error("Holding: %s", why, extra=fields(hold=hold, held=1))
            self._change(hold, why)

    def end(self, hold: Hold, what: str) -> None:
        """Go on, if it was held; `what` says what has changed."""
        if hold in self._why:
            log.info("Going on: %s", what, extra=fields(hold=hold, held=0))
            self._change(hold, None)

    def _change(self, hold: Hold, why: str | None) -> None:
        if why is None:
            del self._why[hold]
        else:
            self._why[hold] = why
        self._metrics.held(hold, held=why is not None)
        self._health.held = "; ".join(self._why.values()) or None
