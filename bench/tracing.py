"""What tracing costs, in CPU of the worker's own thread: turns with and without take turns.

    python -m bench.tracing [--seconds S] [--json FILE]
    python -m bench.tracing --whole

In one process, the same turn is taken again and again by the parts of a worker, read from memory
and written nowhere: decoded, scored and judged. `headers` is what the same turn costs more when
each event carries a traceparent, which its score carries on. `tracing` is what its spans cost on
top: those of events without headers, and of events that each name a trace, all sampled; and of
turns that the sampler leaves out. `sending` is the CPU of the thread that sends the linked spans,
to a collector that takes all. Reading, writing and librdkafka's threads are no part of it.

`--whole` has a worker drain a topic of a real broker, with spans and without, as `bench.stages`
does, and prints that table: its `total` is the CPU of the whole process.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from bench import model, stages
from bench.compare import EVENTS, REPEATS
from bench.findings import Run
from bench.load import all_messages, headers
from bench.report import machine, write_json
from demo.broker import free_port
from demo.process import start_child
from schemas.dead_letter import Headers
from worker.metrics import Metrics
from worker.model import Model, ModelOptions, open_model
from worker.scoring import scoring
from worker.service import Settled, Source
from worker.span_export import tracing
from worker.tracing import Places, Tracing
from worker.turn import Outputs, Records, Turn

RESULTS = Path(__file__).parent / "results" / "tracing.json"
ROWS = (1, 16, 256, 4096)
SECONDS = 6.0
RECORDS_AT_ONCE = 4096
PLACES = Places("events", "scores", "dead-letters", "odradek-events", "rdkafka")
WAYS = ("bare", "headers", "plain spans", "linked spans", "not sampled")
COLUMNS = (*WAYS, "sending")
SENT_TURNS = 70  # About as many as a batch of the SDK's has spans for.


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table and write the JSON; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.tracing", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for each size of turn")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where to write the results")
    parser.add_argument("--whole", action="store_true", help="a worker on a real broker instead")
    options = parser.parse_args(arguments)
    if options.whole:
        print(stages.table(whole()))
        return 0
    serving = open_model(model.sealed_model(), ModelOptions("cpu"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Taking)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{server.server_port}"
    # Room for all: a turn's spans are to be queued, not dropped.
    os.environ["OTEL_BSP_MAX_QUEUE_SIZE"] = "100000"
    sampled = tracing(PLACES, lambda: serving, 0)
    os.environ["OTEL_TRACES_SAMPLER"] = "always_off"
    unsampled = tracing(PLACES, lambda: serving, 0)
    found = {
        str(rows): measure(serving, rows, options.seconds, sampled, unsampled) for rows in ROWS
    }
    print(table(found))
    write_json(options.json, {"machine": machine(), "us_per_turn": found})
    return 0


def whole() -> dict[str, list[Run]]:
    """Return the runs of a worker with spans and without, of events with headers and without."""
    port = free_port()
    of = {row.key: row for row in stages.ROWS["work"]}
    on = {
        "ODRADEK_TRACING": "on",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
    }
    rows = [
        each
        for row in (of["array"], of["trace-headers"])
        for each in (
            row,
            replace(row, key=f"{row.key}-spans", name=f"{row.name}, spans", settings=on),
        )
    ]
    takes = (
        "import http.server as h, bench.tracing as b; "
        f"h.ThreadingHTTPServer(('127.0.0.1', {port}), b.Taking).serve_forever()"
    )
    collector = start_child([sys.executable, "-c", takes])
    try:
        return stages.measure(rows, EVENTS, REPEATS)
    finally:
        collector.kill()
        collector.wait()


def measure(
    serving: Model, rows: int, seconds: float, sampled: Tracing, unsampled: Tracing
) -> dict[str, float]:
    """Return microseconds of CPU per turn of so many records, whole and added, by `WAYS`."""
    plain, carrying = _turn(rows, "json"), _turn(rows, "traced")
    ways = {
        "bare": _worker(serving, plain, None),
        "headers": _worker(serving, carrying, None),
        "plain spans": _worker(serving, plain, sampled),
        "linked spans": _worker(serving, carrying, sampled),
        "not sampled": _worker(serving, plain, unsampled),
    }
    turns = max(1, RECORDS_AT_ONCE // rows // 8)
    spent: dict[str, list[float]] = {name: [] for name in WAYS}
    deadline = time.monotonic() + seconds
    gc.collect()
    gc.freeze()  # As in a worker.
    draws = random.Random(1)
    while time.monotonic() < deadline:
        for name in draws.sample(WAYS, len(WAYS)):  # None always follows the same one.
            spent[name].append(_cpu_s(ways[name], turns) * 1e6 / turns)
    medians = {name: float(np.median(of[1:])) for name, of in spent.items()}
    bare, carried = medians["bare"], medians["headers"]
    return {
        "bare": bare,
        "headers": carried - bare,
        "plain spans": medians["plain spans"] - bare,
        "linked spans": medians["linked spans"] - carried,
        "not sampled": medians["not sampled"] - bare,
        "sending": sending(serving, carrying),
    }


def sending(serving: Model, turn: Turn) -> float:
    """Return microseconds of CPU to encode and send the spans of a turn, in full batches."""
    kept = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False, sampler=ALWAYS_ON)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    traces = Tracing(provider.get_tracer("bench"), PLACES, lambda: serving, 128, kept.shutdown)
    take = _worker(serving, turn, traces)
    for _ in range(SENT_TURNS):
        take()
    spans, exporter = kept.get_finished_spans(), OTLPSpanExporter()
    taken: list[float] = []
    for _ in range(5):
        began = time.thread_time()
        assert exporter.export(spans) is SpanExportResult.SUCCESS
        taken.append(time.thread_time() - began)
    return float(np.median(taken)) * 1e6 / SENT_TURNS


def table(found: Mapping[str, Mapping[str, float]]) -> str:
    """Return the results for people."""
    lines = [
        "CPU us/turn of decoding, scoring and judging, and what is added",
        f"{'records in a turn':>18}" + "".join(f"{name:>14}" for name in COLUMNS),
    ]
    for rows, of in found.items():
        lines.append(f"{rows:>18}" + "".join(f"{of[name]:14.1f}" for name in COLUMNS))
    return "\n".join(lines)


class _Memory:
    """A source of one turn again and again, and a delivery to nowhere."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn

    def start(self, settle: Callable[[float], None]) -> None: ...
    def keep_alive(self, wait_s: float) -> None: ...
    def rewind(self) -> None: ...
    def close(self, limit_s: float = 0.0) -> None: ...
    def idle(self) -> None: ...
    def write(self, outputs: Outputs) -> None: ...

    def read(self, wait_s: float) -> Turn | None:  # noqa: ARG002
        return self._turn

    def still_owned(self, turn: Turn) -> Turn:
        return turn

    def settle(self, turn: Turn, wait_s: float) -> Settled:  # noqa: ARG002
        return Settled.DONE


def _worker(serving: Model, turn: Turn, traces: Tracing | None) -> Callable[[], None]:
    """Return what takes a turn as `worker.service` does, in the same order of steps."""
    memory = _Memory(turn)
    source: Source = memory
    metrics = Metrics()
    parts = (source, memory, metrics)
    source, delivery, timed = parts if traces is None else traces.around(*parts)
    process = scoring(timed, 5)

    def take() -> None:
        read = source.read(0)
        assert read is not None
        delivery.write(process(read.records, serving))
        delivery.settle(read, 0)

    return take


def _cpu_s(way: Callable[[], object], times: int) -> float:
    began = time.thread_time()
    for _ in range(times):
        way()
    return time.thread_time() - began


def _turn(rows: int, kind: str) -> Turn:
    values: list[bytes | None] = [message["value"] for message in all_messages("json", rows)]
    now_ms = [int(time.time() * 1000)] * rows
    none: list[Headers | None] = [None] * rows
    records = Records("events", [0] * rows, [*range(rows)], now_ms, [None] * rows, values, none)
    if kind == "traced":
        carried: list[Headers | None] = [[*(headers("traced", row) or ())] for row in range(rows)]
        records = replace(records, headers=carried)
    return Turn(records, {0: rows}, {0: 1})


class Taking(BaseHTTPRequestHandler):
    """A collector that takes all, and does nothing with it."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


if __name__ == "__main__":
    sys.exit(main())
