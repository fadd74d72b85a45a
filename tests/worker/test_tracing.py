"""The spans of turns, on the memory log: what they say, also of turns that come to nothing."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

from schemas.errors import EXIT_USER, SettingsError
from tests.builders import a_sealed_model, an_event
from tests.collector import Collector, collecting
from tests.components import within
from tests.memory_clients import MemorySink, MemorySource, MemoryTransactions
from tests.memory_log import Clock, Faults, MemoryLog
from worker.breaker import Breaker
from worker.delivery import AtLeastOnce, ExactlyOnce
from worker.health import Health
from worker.hold import Holds
from worker.metrics import Metrics
from worker.model import ModelOptions, open_model
from worker.model_slot import ModelSlot
from worker.scoring import scoring
from worker.service import Clocks, Worker
from worker.span_export import CLOSE_S, tracing
from worker.tracing import Places, Tracing

PLACES = Places("events", "scores", "dead-letters", "group", "client")
STAGES = ["read", "decode", "score", "encode", "write", "settle"]
BATCH = 100


class Bench:
    """A traced worker on a log of its own; its spans are kept in memory."""

    def __init__(self, folder: Path, *, transactions: bool = False, **sdk: object) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False, **sdk)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.log, clock, faults = MemoryLog(), Clock(), Faults(calm=True, pause=self._pause)
        for topic in PLACES[:3]:
            self.log.create_topic(topic)
        self.on_step = {"read": lambda: None}
        path = folder / "model.onnx"
        path.write_bytes(a_sealed_model())
        models = ModelSlot(
            path,
            lambda sealed: open_model(sealed, ModelOptions("cpu", batch_max=1)),
            check_interval_s=1e6,
            allow_contract_change=False,
            on_load=lambda *_: None,
        )
        self.tracing = Tracing(
            provider.get_tracer("test"), PLACES, lambda: models.current, 128, provider.shutdown
        )
        kafka = MemorySource(self.log, "events", "group", BATCH, faults=faults, clock=clock)
        kind = MemoryTransactions if transactions else MemorySink
        self.sink = kind(self.log, "scores", "dead-letters", faults=faults, clock=clock)
        deliver = (ExactlyOnce if transactions else AtLeastOnce)(kafka, self.sink)
        metrics, health = Metrics(), Health(60.0, last_beat=clock())
        source, deliver, stages = self.tracing.around(kafka, deliver, metrics)
        self.worker = Worker(
            source,
            deliver,
            models,
            scoring(stages, 2),
            metrics,
            health,
            Holds(health, metrics),
            Clocks(clock, clock),
            breaker=Breaker(0.9),
            idle_wait_s=0.2,
            stop_timeout_s=5.0,
        )

    def _pause(self, step: str) -> None:
        self.on_step.get(step, lambda: None)()

    def put(self, *values: bytes) -> None:
        for value in values:
            self.log.append("events", value)

    def run(self, reads: int = 3) -> None:
        left = iter(range(reads - 1))

        def read() -> None:
            if next(left, None) is None:
                self.worker.stop()

        self.on_step["read"] = read
        self.worker.run()
        self.tracing.close()

    @property
    def turns(self) -> list[ReadableSpan]:
        return [span for span in self._finished() if span.parent is None]

    def inside(self, turn: ReadableSpan) -> list[ReadableSpan]:
        own = (turn.context.span_id, turn.context.trace_id)
        return [
            span
            for span in self._finished()
            if span.parent is not None and (span.parent.span_id, span.context.trace_id) == own
        ]

    def _finished(self) -> tuple[ReadableSpan, ...]:
        return self.exporter.get_finished_spans()


def test_a_turn_is_a_trace_with_a_span_for_each_stage(tmp_path):
    bench = Bench(tmp_path)
    bench.put(an_event(1, 2, 3), b"rubbish")
    began = time.time_ns()
    bench.run()
    (turn,) = bench.turns
    assert (turn.name, turn.kind) == ("process events", SpanKind.CONSUMER)
    assert turn.attributes.items() >= {
        ("messaging.batch.message_count", 2),
        ("odradek.records.dead_letter", 1),
        ("odradek.turn.released", "drained"),
        ("odradek.model.version", "1"),
    }
    inside = bench.inside(turn)
    assert [span.attributes["odradek.stage"] for span in inside] == STAGES
    assert [span.name for span in inside] == [
        *("poll events", "decode", "score", "encode", "send", "commit events")
    ]
    times = [time for span in inside for time in (span.start_time, span.end_time)]
    assert times == sorted(times)  # One after another.
    assert began < turn.start_time == times[0] <= times[-1] == turn.end_time < time.time_ns()


def test_what_is_written_to_one_topic_names_it(tmp_path):
    bench = Bench(tmp_path)
    bench.put(an_event(1, 2, 3))
    bench.run()
    assert "send scores" in [span.name for span in bench.inside(bench.turns[0])]
    only_rubbish = Bench(tmp_path)
    only_rubbish.put(b"rubbish")
    only_rubbish.run()
    (turn,) = only_rubbish.turns
    assert "send dead-letters" in [span.name for span in only_rubbish.inside(turn)]


def test_idle_reads_make_no_spans(tmp_path):
    bench = Bench(tmp_path)
    bench.run()
    assert not bench.turns


def test_a_turn_that_is_undone_says_so_and_the_next_try_is_another_trace(tmp_path):
    bench = Bench(tmp_path, transactions=True)

    def outlast() -> None:
        bench.on_step.pop("settle")
        bench.sink.transaction.ended = True

    bench.on_step["settle"] = outlast
    bench.put(an_event(1, 2, 3))
    bench.run(reads=5)
    undone, done = bench.turns
    assert undone.attributes["error.type"] == "undone"
    assert undone.status.status_code is StatusCode.ERROR
    assert "error.type" not in done.attributes
    assert done.context.trace_id != undone.context.trace_id


def test_a_turn_that_the_breaker_stops_is_not_written(tmp_path):
    bench = Bench(tmp_path)
    bench.put(*[b"rubbish"] * BATCH)
    bench.on_step["read"] = lambda: None
    bench.worker.turn()
    bench.tracing.close()
    (turn,) = bench.turns
    assert turn.attributes["error.type"] == "not_written"
    assert [span.attributes["odradek.stage"] for span in bench.inside(turn)] == STAGES[:4]


def test_a_turn_that_is_not_sampled_leaves_nothing(tmp_path):
    bench = Bench(tmp_path, sampler=ALWAYS_OFF)
    bench.put(an_event(1, 2, 3))
    bench.run()
    assert not bench.turns
    assert len(bench.log.topics["scores"].records()) == 1


@pytest.fixture
def exporting(bare_environment, caplog):
    """Environment and log of a tracing whose batches are small and soon."""
    caplog.set_level(logging.INFO, "worker.span_export")
    for name, value in (
        ("OTEL_BSP_SCHEDULE_DELAY", "10"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "8"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "0.5"),
    ):
        bare_environment.setenv(name, value)
    return bare_environment


def a_tracing(environment, collector: Collector) -> Tracing:
    environment.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
    return tracing(PLACES, lambda: None, 9108)


def test_trouble_with_the_collector_is_said_once_and_once_when_it_is_over(exporting, caplog):
    with collecting() as collector:
        traces = a_tracing(exporting, collector)

        def span_until(condition) -> bool:
            return within(lambda: traces._tracer.start_span("process x").end() or condition())

        def said() -> list[str]:
            return [text.split(",")[0].split(";")[0] for text in caplog.messages]

        assert span_until(lambda: collector.spans)
        assert said() == []
        collector.status = 500
        told = collector.requests
        assert span_until(lambda: collector.requests > told + 5)
        assert said() == ["Spans are lost"]
        assert "500" in caplog.messages[0]
        collector.status = 200
        assert span_until(lambda: len(said()) == 2)
        assert said()[1] == "Spans are sent again"
        collector.status = 503
        assert span_until(lambda: len(said()) == 3)
        traces.close()
        assert said() == ["Spans are lost", "Spans are sent again", "Spans are lost"]


def test_a_queue_that_is_full_is_said_once_and_nothing_waits_for_it(exporting, caplog):
    exporting.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "60")
    with collecting() as collector:
        collector.answers.clear()
        traces = a_tracing(exporting, collector)
        began = time.monotonic()
        for _ in range(100):
            traces._tracer.start_span("process x").end()
        assert len(caplog.messages) == 1
        assert "made faster than they are sent" in caplog.messages[0]
        traces.close()
        assert CLOSE_S <= time.monotonic() - began < CLOSE_S + 2
        assert "not sent" in caplog.messages[1]
    # The collector is gone now, and the SDK's thread does not go on trying, a minute long.
    assert within(
        lambda: not any(thread.name.startswith("OtelBatch") for thread in threading.enumerate()),
        wait_s=5.0,
    )


def test_a_collector_that_never_answers_is_told_of_also_after_a_full_queue(exporting, caplog):
    with collecting() as collector:
        collector.answers.clear()
        traces = a_tracing(exporting, collector)
        for _ in range(100):
            traces._tracer.start_span("process x").end()
        assert "made faster than they are sent" in caplog.messages[0]
        assert "does not answer" in caplog.messages[0]
        assert within(lambda: len(caplog.messages) > 1)
        assert "did not take them" in caplog.messages[1]
        assert "due to timeout" in caplog.messages[1]
        traces.close()
        assert sum("Spans are lost" in text for text in caplog.messages) == 2


def test_variables_that_cannot_be_used_are_told(bare_environment):
    bare_environment.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "8")  # Below the size of a batch.
    with pytest.raises(SettingsError, match="max_export_batch_size"):
        tracing(PLACES, lambda: None, 9108)
    bare_environment.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with pytest.raises(SettingsError, match="'grpc'; a worker's spans go by http/protobuf"):
        tracing(PLACES, lambda: None, 9108)


def test_the_sampler_of_the_environment_decides(exporting):
    exporting.setenv("OTEL_TRACES_SAMPLER", "always_off")
    with collecting() as collector:
        traces = a_tracing(exporting, collector)
        assert not traces._tracer.start_span("process x").is_recording()
        traces.close()
        assert not collector.requests


def test_tracing_without_its_library_is_the_users_mistake(tmp_path):
    """Found before a broker is asked for."""
    (tmp_path / "model.onnx").write_bytes(a_sealed_model())
    text = (
        "import sys; sys.modules['opentelemetry'] = None; from worker.__main__ import cli; "
        "sys.argv = ['odradek-worker', 'run', '--tracing', 'on']; cli()"
    )
    environment = {
        **os.environ,
        "ODRADEK_MODEL": str(tmp_path / "model.onnx"),
        "ODRADEK_HTTP_PORT": "0",
        "ODRADEK_PROVIDER": "cpu",
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
    }
    asked = subprocess.run(
        [sys.executable, "-c", text], env=environment, capture_output=True, text=True, check=False
    )
    assert asked.returncode == EXIT_USER
    assert "OpenTelemetry's SDK is not installed (no module opentelemetry" in asked.stderr
    assert "pip install 'odradek[tracing]'" in asked.stderr


def test_a_worker_without_tracing_imports_none_of_it():
    text = "import sys, worker.run_command, worker.redrive_command; print(*sys.modules)"
    asked = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert "worker.wiring" in asked.stdout
    assert "opentelemetry" not in asked.stdout
    assert "worker.tracing" not in asked.stdout
