"""The worker's program: settings -> objects -> run -> exit code.

odradek-worker run                     score a topic until told to stop
odradek-worker redrive                 score its dead letters again, those that are there now
odradek-worker check MODEL.onnx        is this file fit to serve? exit 0, or 1 with the reason
odradek-worker score MODEL.onnx FILE   score a file, one score record a line on stdout
"""

from __future__ import annotations

import contextlib
import functools
import gc
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence

from schemas.errors import EXIT_USER, SettingsError, did_you_mean, run_program
from worker import logs, offline
from worker.breaker import Breaker
from worker.hold import Holds
from worker.model_slot import ModelSlot
from worker.redrive_command import redrive
from worker.scoring import scoring
from worker.service import Clocks, Worker
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
    watched,
)

log = logging.getLogger(__name__)


def cli() -> None:
    """The entry point of `odradek-worker`."""
    code = run_program(functools.partial(main, sys.argv[1:]))
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # Nobody reads it, or it is closed.
            stream.flush()
    # Not sys.exit: a thread of librdkafka's may call into an interpreter that is being taken down.
    # A worker that had said why it stopped died of signal 11 so.
    os._exit(code)


def main(arguments: Sequence[str]) -> int:
    """Run one of the worker's commands and return its exit code."""
    commands: dict[str, Callable[[Sequence[str]], int]] = {
        "run": run,
        "redrive": redrive,
        "check": offline.check,
        "score": offline.score,
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
    seen = watched(settings)
    slot = models(settings, settings.model, seen.metrics)
    broker = connected(settings, kafka, seen.health)
    worker = _worker(settings, broker, seen, slot)
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
    signals.live(worker)
    log.info("Stopped in order: nothing is left unsettled.")
    return 0


def _worker(settings: WorkerSettings, broker: Connected, seen: Watched, slot: ModelSlot) -> Worker:
    holds = Holds(seen.health, seen.metrics)
    source = kafka_source(settings, broker, seen, holds)
    return Worker(
        source,
        delivery(settings, broker, source, Topics(*settings.writes), seen, holds),
        slot,
        scoring(seen.metrics, settings.top_features, settings.input_format),
        seen.metrics,
        seen.health,
        holds,
        Clocks(time.monotonic, time.time),
        breaker=Breaker(settings.breaker_ratio) if settings.breaker == "on" else None,
        idle_wait_s=IDLE_WAIT_S,
        stop_timeout_s=settings.stop_timeout_s,
    )


if __name__ == "__main__":
    cli()
