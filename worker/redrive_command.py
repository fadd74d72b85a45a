"""`odradek-worker redrive`: a finite run over the dead-letter topic, and what came of it."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Collection, Sequence
from typing import cast, get_args

from schemas.score import Source, Verdict
from worker import logs
from worker.ends import Ends
from worker.finite import FiniteSource
from worker.hold import Holds
from worker.metrics import Metrics
from worker.model import Model
from worker.model_slot import ModelSlot
from worker.redrive import SENT, Skip, Wanted, places_text, redriving, send_again
from worker.redrive_settings import RedriveSettings, read_redrive_settings
from worker.scoring import scoring
from worker.service import Clocks, Worker
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
    watched,
)

log = logging.getLogger(__name__)


def redrive(arguments: Sequence[str]) -> int:
    """Redrive the letters that are there now, until SIGTERM or SIGINT at most."""
    logs.configure("auto", "info")  # For what is said of the settings themselves.
    settings, kafka = read_redrive_settings(arguments)
    logs.configure(settings.log_format, settings.log_level)
    signals = Signals(settings.stop_timeout_s)
    seen = watched(settings)
    slot = _models(settings, seen.metrics)
    broker = connected(settings, kafka, seen.health)
    ends = Ends(
        broker.kafka.consumer,
        settings.reads,
        settings.group_id,
        broker.watch,
        settings.start_timeout_s,
    )
    stubs: set[Source] = set()
    worker, source = _worker(settings, broker, seen, slot, ends, stubs)
    log.info(
        "Redriving %s as group %s, writing %s and %s; metrics on port %d. The breaker is off.",
        settings.reads,
        settings.group_id,
        *settings.writes,
        seen.http_port,
    )
    try:
        signals.live(worker)
    finally:
        ends.close()
        sys.stdout.write(summary(settings, seen.metrics, stubs, ended=source.ended))
        sys.stdout.flush()
    return 0


def _worker(
    settings: RedriveSettings,
    broker: Connected,
    seen: Watched,
    slot: ModelSlot,
    ends: Ends,
    stubs: set[Source],
) -> tuple[Worker, FiniteSource]:
    metrics, health, _ = seen
    holds = Holds(health, metrics)
    topics = Topics(*settings.writes)
    process = scoring(metrics, settings.top_features, settings.input_format)
    if settings.to_input:
        # A record that is sent again must be the one that it was.
        topics, process = topics._replace(shrink_output=None), send_again
    source = kafka_source(settings, broker, seen, holds)
    finite = FiniteSource(source, ends.ends, ends.reached, lambda: worker.stop())
    worker = Worker(
        finite,
        delivery(settings, broker, source, topics, seen, holds),
        slot,
        redriving(Wanted(settings.input_topic, settings.reasons), process, stubs.add),
        metrics,
        health,
        holds,
        Clocks(time.monotonic, time.time),
        breaker=None,
        idle_wait_s=IDLE_WAIT_S,
        stop_timeout_s=settings.stop_timeout_s,
    )
    return worker, finite


class _NoModels:
    """Stands where a worker has its models, for a process that uses none."""

    current = cast("Model", None)

    def refresh(self, now: float) -> None:
        """There is nothing to look for."""


def _models(settings: RedriveSettings, metrics: Metrics) -> ModelSlot:
    if settings.to_input or settings.model is None:
        return cast("ModelSlot", _NoModels())
    return models(settings, settings.model, metrics)


def summary(
    settings: RedriveSettings, metrics: Metrics, stubs: Collection[Source], *, ended: bool
) -> str:
    """Return what this worker's redrive came to, as its metrics count it: when acknowledged."""

    def count(outcome: str) -> int:
        labels = {"outcome": outcome}
        return int(metrics.registry.get_sample_value("odradek_records_total", labels) or 0)

    verdicts: dict[str, int] = {verdict: count(verdict) for verdict in get_args(Verdict)}
    scored, failed, sent = sum(verdicts.values()), count("dead_letter"), count(SENT)
    skipped = {skip: count(skip) for skip in Skip}
    by_verdict = ", ".join(f"{number:,} {verdict}" for verdict, number in verdicts.items())
    counts = [
        (sent, f"sent to {settings.input_topic} again"),
        (scored, f"scored: {by_verdict}"),
        (failed, f"failed again, and are dead letters of {settings.reads} again"),
        (skipped[Skip.OTHER_REASON], "left: of another reason"),
        (skipped[Skip.OTHER_TOPIC], f"left: of another input topic than {settings.input_topic}"),
        (skipped[Skip.NOT_OURS], "left: no dead letters of ours"),
        (skipped[Skip.STUB], "left: stubs, whose records must be read at their source"),
    ]
    read = scored + failed + sent + sum(skipped.values())
    end = "the end is reached" if ended else "stopped before the end; the same command goes on"
    lines = [f"{read:,} letters read from {settings.reads} as {settings.group_id}; {end}."]
    lines += [f"{number:9,} {what}" for number, what in counts if number]
    if stubs:
        lines.append(f"stubs: {places_text(stubs)}")
    return "\n".join(lines) + "\n"
