"""The objects of a worker on Kafka, and how they hang together: what `run` and `redrive` share."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from schemas.errors import SettingsError
from worker.delivery import AtLeastOnce, ExactlyOnce
from worker.health import Health
from worker.hold import Holds
from worker.http import serve_http
from worker.kafka_client import BrokerWatch
from worker.kafka_properties import ClientProperties, is_classic
from worker.metrics import Metrics
from worker.model import ModelOptions, open_model
from worker.model_slot import ModelSlot
from worker.positions import Positions
from worker.service import Delivery
from worker.session import CudaOptions, Gpu
from worker.settings import Settings, WorkerSettings
from worker.sink import KafkaSink, Topics
from worker.source import KafkaSource
from worker.topics import make_admin, topic_limits, wait_for_topics, with_batch_bytes
from worker.transactional_client import transactional_id
from worker.transactions import TransactionalSink
from worker.turn import TurnLimits

if TYPE_CHECKING:
    from worker.tracing import Tracing

IDLE_WAIT_S = 0.2


class Watched(NamedTuple):
    """How a worker is seen from outside."""

    metrics: Metrics
    health: Health
    http_port: int


class Connected(NamedTuple):
    """A broker that answers and has our topics, and how we talk to it."""

    kafka: ClientProperties
    watch: BrokerWatch


def watched(settings: Settings) -> Watched:
    """Serve /metrics, /healthz and /readyz."""
    metrics = Metrics(settings.drift_window_s)
    health = Health(settings.stuck_after_s, last_beat=time.monotonic())
    metrics.watch_health(health, time.monotonic)
    http = serve_http(
        settings.http_host, settings.http_port, metrics.registry, health, time.monotonic
    )
    return Watched(metrics, health, http.server_port)


def models(settings: Settings, path: Path, metrics: Metrics) -> ModelSlot:
    """Open the model file, and keep an eye on it."""
    options = ModelOptions(
        settings.provider,
        settings.threads,
        settings.batch_max,
        settings.model_digest,
        CudaOptions(
            mem_limit_mb=settings.gpu_mem_limit_mb,
            tf32=settings.gpu_tf32,
            graph=settings.gpu_graph,
        ),
    )
    gpu = Gpu()
    return ModelSlot(
        path,
        lambda sealed: open_model(sealed, options, gpu, metrics.scores_with),
        check_interval_s=settings.model_check_interval_s,
        allow_contract_change=settings.allow_contract_change,
        on_load=lambda outcome, current: metrics.model_load(outcome, current, time.time()),
    )


def connected(settings: Settings, kafka: ClientProperties, health: Health) -> Connected:
    """Wait for a broker with our topics."""
    watch = BrokerWatch(health, classic_group=is_classic(kafka.consumer))
    admin = make_admin(kafka.consumer, watch)
    wait_for_topics(settings, kafka.consumer["bootstrap.servers"], admin, watch)
    return Connected(with_batch_bytes(kafka, topic_limits(admin, settings.writes)), watch)


def kafka_source(settings: Settings, broker: Connected, seen: Watched, holds: Holds) -> KafkaSource:
    """Return the source of the topic that is read."""

    def joined() -> None:
        seen.health.joined = True

    source = KafkaSource(
        {**broker.kafka.consumer, "group.id": settings.group_id},
        settings.reads,
        TurnLimits(settings.batch_max, settings.batch_wait_ms / 1000),
        Positions(
            partial(make_admin, broker.kafka.consumer, broker.watch),
            settings.reads,
            settings.group_id,
            settings.start_rules,
        ),
        broker.watch,
        seen.metrics,
        holds,
        joined,
        jump_gaps=settings.on_gap == "jump",
        in_transactions=settings.delivery == "exactly-once",
    )
    seen.metrics.watch_partitions(source.lags, source.lags.positions)
    return source


def delivery(
    settings: Settings,
    broker: Connected,
    source: KafkaSource,
    topics: Topics,
    seen: Watched,
    holds: Holds,
) -> Delivery:
    """Return the delivery that ODRADEK_DELIVERY promises."""
    kafka, watch = broker
    if settings.delivery == "at-least-once":
        return AtLeastOnce(source, KafkaSink(kafka.producer, topics, watch, seen.metrics, holds))
    static_id = kafka.consumer.get("group.instance.id")
    sink = TransactionalSink(
        kafka.producer,
        topics,
        lambda: topic_limits(make_admin(kafka.consumer, watch), topics[:2]),
        lambda: transactional_id(settings.group_id, static_id),
        watch,
        seen.metrics,
        holds,
        settings.start_timeout_s,
        lambda: static_id is None or seen.health.joined,
    )
    return ExactlyOnce(source, sink)


def tracing(
    settings: WorkerSettings, kafka: ClientProperties, seen: Watched, slot: ModelSlot
) -> Tracing | None:
    """Return what makes spans of turns, where ODRADEK_TRACING asks for it.

    Raises:
        SettingsError: what it needs is not installed, or cannot be set up.
    """
    if settings.tracing == "off":
        return None
    try:
        from worker import span_export
        from worker.tracing import Places
    except ModuleNotFoundError as missing:
        raise SettingsError(
            f"ODRADEK_TRACING is on, and OpenTelemetry's SDK is not installed (no module "
            f"{missing.name}); not starting. It comes with an extra: pip install 'odradek[tracing]'"
        ) from None
    client_id = kafka.consumer.get("client.id", "rdkafka")  # librdkafka's own default.
    places = Places(settings.reads, *settings.writes, settings.group_id, client_id)
    return span_export.tracing(places, lambda: slot.current, seen.http_port)
