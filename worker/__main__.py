"""The worker's program: settings -> objects -> run -> exit code.

odradek-worker run                     score a topic until told to stop
odradek-worker redrive                 score its dead letters again, those that are there now
odradek-worker check MODEL.onnx        is this file fit to serve? exit 0, or 1 with the reason
odradek-worker score MODEL.onnx FILE   score a file, one score record a line on stdout
"""

from __future__ import annotations

import faulthandler
import functools
import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from types import FrameType

from schemas.errors import EXIT_USER, OutsideError, SettingsError, did_you_mean, run_program
from worker import logs, offline
from worker.breaker import Breaker
from worker.delivery import AtLeastOnce, ExactlyOnce
from worker.health import Health
from worker.hold import Holds
from worker.http import serve_http
from worker.kafka_client import BrokerWatch
from worker.kafka_properties import ClientProperties
from worker.metrics import Metrics
from worker.model import ModelOptions, open_model
from worker.model_slot import ModelSlot
from worker.positions import Positions
from worker.redrive_command import redrive
from worker.scoring import scoring
from worker.service import Clocks, Delivery, Worker
from worker.settings import WorkerSettings, read_settings
from worker.sink import KafkaSink, Topics
from worker.source import KafkaSource
from worker.topics import AdminClient, make_admin, wait_for_topics, with_batch_bytes
from worker.transactions import TransactionalSink, transactional_id

log = logging.getLogger(__name__)

# Beyond the stop limit something hangs that has no limit of its own (a client's close).
WATCHDOG_MARGIN_S = 5.0
IDLE_WAIT_S = 0.2


def cli() -> None:
    """The entry point of `odradek-worker`."""
    sys.exit(run_program(functools.partial(main, sys.argv[1:])))


def main(arguments: Sequence[str]) -> int:
    """Run one of the worker's commands and return its exit code."""
    commands: dict[str, Callable[[Sequence[str]], int]] = {
        "run": run,
        "check": offline.check,
        "score": offline.score,
        "redrive": redrive,
    }
    match arguments:
        case [] | ["-h" | "--help", *_]:
            sys.stdout.write(__doc__ or "")
            return 0 if arguments else EXIT_USER
        case [name, *rest] if name in commands:
            return commands[name](rest)
        case [name, *_]:
            raise SettingsError(
                f"{name!r} is not a command{did_you_mean(name, commands)}; wanted one of "
                f"{', '.join(commands)}"
            )
    raise AssertionError(arguments)


def run(arguments: Sequence[str]) -> int:
    """Score a topic until SIGTERM or SIGINT."""
    logs.configure("auto", "info")  # For what is said of the settings themselves.
    settings, kafka = read_settings(arguments)
    logs.configure(settings.log_format, settings.log_level)
    signals = Signals(settings.stop_timeout_s)
    metrics = Metrics()
    health = Health(settings.stuck_after_s, last_beat=time.monotonic())
    http = serve_http(
        settings.http_host, settings.http_port, metrics.registry, health, time.monotonic
    )
    models = _models(settings, metrics)
    watch = BrokerWatch(health)
    admin = make_admin(kafka.consumer, watch)
    batch_bytes = wait_for_topics(settings, kafka.consumer["bootstrap.servers"], admin, watch)
    kafka = with_batch_bytes(kafka, batch_bytes)
    worker = _worker(settings, kafka, admin, models, metrics, health, watch)
    # What lives until now lives to the end: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    log.info(
        "Reading %s as group %s, writing %s and %s; metrics on port %d.",
        settings.input_topic,
        settings.group_id,
        settings.output_topic,
        settings.dead_letter_topic,
        http.server_port,
    )
    signals.stop = worker.stop
    try:
        worker.run()
    except OutsideError as error:
        # Said now: leaving the group may take its time, or be cut.
        log.error("Stopping: %s", error)
        raise
    log.info("Stopped in order: the last turn is settled.")
    return 0


def _models(settings: WorkerSettings, metrics: Metrics) -> ModelSlot:
    options = ModelOptions(
        settings.provider, settings.threads, settings.batch_max, settings.model_digest
    )
    return ModelSlot(
        settings.model,
        lambda sealed: open_model(sealed, options),
        check_interval_s=settings.model_check_interval_s,
        allow_contract_change=settings.allow_contract_change,
        on_load=lambda outcome, current: metrics.model_load(outcome, current, time.time()),
    )


def _worker(
    settings: WorkerSettings,
    kafka: ClientProperties,
    admin: AdminClient,
    models: ModelSlot,
    metrics: Metrics,
    health: Health,
    watch: BrokerWatch,
) -> Worker:
    def joined() -> None:
        health.joined = True

    holds = Holds(health, metrics)
    source = KafkaSource(
        {**kafka.consumer, "group.id": settings.group_id},
        settings.input_topic,
        settings.batch_max,
        Positions(
            lambda: make_admin(kafka.consumer, watch),
            settings.input_topic,
            settings.group_id,
            settings.start_rules,
        ),
        watch,
        metrics,
        holds,
        joined,
        jump_gaps=settings.on_gap == "jump",
    )
    metrics.watch_lag(source.lags)
    return Worker(
        source,
        _delivery(settings, kafka, source, watch, metrics, holds),
        models,
        scoring(metrics, settings.top_features),
        metrics,
        health,
        holds,
        Clocks(time.monotonic, time.time),
        breaker=Breaker(settings.breaker_ratio) if settings.breaker == "on" else None,
        idle_wait_s=IDLE_WAIT_S,
        stop_timeout_s=settings.stop_timeout_s,
    )


def _delivery(
    settings: WorkerSettings,
    kafka: ClientProperties,
    source: KafkaSource,
    watch: BrokerWatch,
    metrics: Metrics,
    holds: Holds,
) -> Delivery:
    topics = Topics(settings.output_topic, settings.dead_letter_topic)
    if settings.delivery == "at-least-once":
        return AtLeastOnce(source, KafkaSink(kafka.producer, topics, watch, metrics, holds))
    static_id = kafka.consumer.get("group.instance.id")
    sink = TransactionalSink(
        kafka.producer,
        topics,
        lambda: transactional_id(settings.group_id, static_id),
        watch,
        metrics,
        holds,
        settings.start_timeout_s,
    )
    return ExactlyOnce(source, sink)


class Signals:
    """SIGTERM and SIGINT: an orderly stop at the first, at once at the second.

    Before there is a worker to stop, the first ends the program: it holds nothing yet. An orderly
    stop that hangs is cut: every thread's stack on stderr, and exit code 1.
    """

    def __init__(self, stop_timeout_s: float) -> None:
        self.stop: Callable[[], None] | None = None
        self._stop_timeout_s = stop_timeout_s
        self._stopping = False
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        if self._stopping:
            log.error("Second signal: stopping at once. Unacknowledged records are read again.")
            os._exit(128 + number)
        self._stopping = True
        name = signal.Signals(number).name
        if self.stop is None:
            log.info("%s before the first turn: nothing to settle.", name)
            raise SystemExit(0)
        log.info("%s: settling the turn in hand, for at most %g s.", name, self._stop_timeout_s)
        faulthandler.dump_traceback_later(self._stop_timeout_s + WATCHDOG_MARGIN_S, exit=True)
        self.stop()


if __name__ == "__main__":
    cli()
