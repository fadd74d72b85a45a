"""Every metric of the worker, in the order of the page that lists them, `docs/metrics.md`.

Each is declared once, in one of the three modules below. Labels come from closed sets, or from
sets that something bounds: none is free text, and none a user of the events'.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from worker import declared_kafka as kafka
from worker import declared_model as model
from worker import declared_turns as turns
from worker.metric import Metric


class Section(NamedTuple):
    """Metrics that belong together."""

    title: str
    metrics: Sequence[Metric]


SECTIONS = (
    Section(
        "Records",
        (
            turns.RECORDS,
            turns.DEAD_LETTERS,
            turns.UNGROUPED,
            turns.TRUNCATED,
            turns.GAPS,
            turns.LOST_RECORDS,
        ),
    ),
    Section(
        "Latency",
        (
            turns.LATENCY,
            turns.AGE_AT_READ,
            turns.IN_WORKER,
            turns.RECORD_WAIT,
            turns.AHEAD,
            turns.RECORDS_AHEAD,
        ),
    ),
    Section(
        "Turns",
        (
            turns.STAGE_TIME,
            turns.STAGE_CPU,
            turns.BATCH,
            turns.TURNS,
            turns.TURNS_UNDONE,
            turns.LAST_TURN,
            turns.LAST_EVENT,
            turns.LAST_BEAT,
        ),
    ),
    Section("State", (kafka.READY, kafka.ALIVE, kafka.HELD, kafka.BUILD_INFO)),
    Section(
        "Group and topics",
        (
            kafka.LAG,
            kafka.POSITION,
            kafka.ASSIGNED,
            kafka.REBALANCES,
            kafka.COMMITS,
            kafka.PRODUCE_ERRORS,
        ),
    ),
    Section(
        "Model",
        (
            model.MODEL_INFO,
            model.MODEL_CREATED,
            model.MODEL_LOADED,
            model.MODEL_LOADS,
            model.MODEL_FILE_REFUSED,
            model.FALLBACK,
        ),
    ),
    Section(
        "Detection",
        (
            model.P_VALUE,
            model.TARGET_RATE,
            model.EXPECTED_RATE,
            model.EXPECTED_RATE_SD,
            model.CALIBRATION_EVENTS,
            model.EXPECTED_FALSE_ALARMS,
            model.FLAGGED,
        ),
    ),
    Section(
        "Drift and missing values",
        (
            model.SAMPLED,
            model.SAMPLE_STRIDE,
            model.MISSING,
            model.REFERENCE_MISSING,
            model.DRIFT,
            model.SCORE_DRIFT,
            model.DRIFT_EVENTS,
            model.DRIFT_SECONDS,
            model.DRIFT_START,
        ),
    ),
    Section(
        "librdkafka",
        (
            kafka.KAFKA_STATISTICS_AT,
            kafka.KAFKA_BROKERS,
            kafka.KAFKA_ROUND_TRIP,
            kafka.KAFKA_ROUND_TRIP_P99,
            kafka.KAFKA_THROTTLE,
            kafka.KAFKA_OUTBOUND,
            kafka.KAFKA_OUTBOUND_BYTES,
            kafka.KAFKA_PREFETCHED,
            kafka.KAFKA_REQUESTS,
            kafka.KAFKA_ERRORS,
        ),
    ),
)
DECLARED = tuple(metric for section in SECTIONS for metric in section.metrics)
