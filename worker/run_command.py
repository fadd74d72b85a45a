"""`odradek-worker run`: settings -> objects -> run -> exit code."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from worker import logs
from worker.breaker import Breaker
from worker.hold import Holds
from worker.model_slot import ModelSlot
from worker.scoring import Stages, scoring
from worker.service import Clocks, Source, Worker
from worker.settings import WorkerSettings, read_settings
from worker.signals import Signals
from worker.sink import Topics
from worker.wiring import (
    IDLE_WAIT_S,
    Connected,
    Watched,
    connected,
    delivery,
    kafka_source,
    models,
    tracing,
    watched,
)

if TYPE_CHECKING:
    from worker.tracing import Tracing

log = logging.getLogger(__name__)


def run(arguments: Sequence[str]) -> int:
    """Score a topic until SIGTERM or SIGINT."""
    logs.configure("auto", "info")  # For what is said of the settings themselves.
    settings, kafka = read_settings(arguments)
    logs.configure(settings.log_format, settings.log_level)
    signals = Signals(settings.stop_timeout_s)
    seen = watched(settings)
    slot = models(settings, settings.model, seen.metrics)
    traces = tracing(settings, kafka, seen, slot)
    broker = connected(settings, kafka, seen.health)
    worker = _worker(settings, broker, seen, slot, traces)
    # What lives until now lives to the end: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    log.info(
        "Reading %s as group %s, writing %s and %s; metrics on port %d.",
        settings.input_topic,
        settings.group_id,
        settings.output_topic,
        settings.dead_letter_topic,
        seen.http_port,
    )
    try:
        signals.live(worker)
    finally:
        if traces is not None:
            traces.close()
    log.info("Stopped in order: nothing is left unsettled.")
    return 0


def _worker(
    settings: WorkerSettings,
    broker: Connected,
    seen: Watched,
    slot: ModelSlot,
    traces: Tracing | None,
) -> Worker:
    holds = Holds(seen.health, seen.metrics)
    kafka = kafka_source(settings, broker, seen, holds)
    source: Source = kafka
    stages: Stages = seen.metrics
    deliver = delivery(settings, broker, kafka, Topics(*settings.writes), seen, holds)
    if traces is not None:
        source, deliver, stages = traces.around(source, deliver, stages)
    return Worker(
        source,
        deliver,
        slot,
        scoring(stages, settings.top_features, settings.input_format),
        seen.metrics,
        seen.health,
        holds,
        Clocks(time.monotonic, time.time),
        breaker=Breaker(settings.breaker_ratio) if settings.breaker == "on" else None,
        idle_wait_s=IDLE_WAIT_S,
        stop_timeout_s=settings.stop_timeout_s,
    )
