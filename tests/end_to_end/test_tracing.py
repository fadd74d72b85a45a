"""Traces of a real worker on a real Kafka, at a door that takes real OTLP."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import get_args

from confluent_kafka import Consumer, Message, Producer, TopicPartition

from demo.books import Books
from demo.broker import free_port
from schemas.dead_letter import Headers
from schemas.score import Verdict
from tests.builders import an_event
from tests.collector import Collector, attributes, collecting
from tests.components import within
from tests.end_to_end.stream import PARTITIONS, WAIT_S, Stream, running
from worker.span_export import CLOSE_S, SCHEMA

EVENTS, LINKS_MAX = 400, 20
STAGES = ["read", "decode", "score", "encode", "write", "settle"]


def trace_headers(number: int) -> Headers:
    """One of five events: nothing, a sampled context, with state, one not sampled, rubbish."""
    sampled = b"00-%032x-%016x-01" % (number + 1, number + 1)
    state = ("tracestate", b"odradek=%d" % number)
    kinds: list[Headers] = [
        [],
        [("traceparent", sampled)],
        [("traceparent", sampled), state],
        [("traceparent", sampled[:-1] + b"0")],
        [("traceparent", sampled[2:]), ("tracestate", b"no list of members")],
    ]
    return kinds[number % 5]


def send(stream: Stream) -> None:
    """Events of all kinds; every seventh is rubbish, and becomes a dead letter."""
    producer = Producer({"bootstrap.servers": stream.servers, "log_level": 2})
    for number in range(EVENTS):
        value = b"rubbish" if number % 7 == 0 else an_event(1, 2, 3, event_id=f"{number}")
        headers = trace_headers(number)
        producer.produce(stream.input, value, str(number), headers=headers, partition=number % 3)
    assert producer.flush(WAIT_S) == 0


def read(stream: Stream, topic: str, count: int) -> dict[int, Message]:
    """The records of a topic by the events' numbers, which are their keys."""
    consumer = Consumer({"bootstrap.servers": stream.servers, "group.id": "reader", "log_level": 2})
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
    found: dict[int, Message] = {}
    deadline = time.monotonic() + WAIT_S
    while len(found) < count:
        assert time.monotonic() < deadline, f"{len(found)} of {count} records in {WAIT_S} s"
        message = consumer.poll(0.1)
        if message is not None and message.error() is None:
            found[int(message.key())] = message
    consumer.close()
    return found


def a_worker(stream: Stream, model: Path, folder: Path, endpoint: str, **settings: str):
    return stream.worker(
        model,
        folder,
        ODRADEK_TRACING="on",
        OTEL_EXPORTER_OTLP_ENDPOINT=endpoint,
        OTEL_BSP_SCHEDULE_DELAY="50",
        **settings,
    )


def test_the_spans_of_a_worker_say_what_its_turns_did_and_link_to_the_events_traces(
    stream: Stream, model: Path, tmp_path: Path
):
    send(stream)
    began = time.time_ns()
    with collecting() as collector:
        worker = a_worker(
            stream,
            model,
            tmp_path,
            collector.endpoint,
            OTEL_SPAN_LINK_COUNT_LIMIT=str(LINKS_MAX),
            OTEL_SERVICE_NAME="scoring",
            ODRADEK_BATCH_MAX="100",
            KAFKA_CONSUMER_CLIENT_ID="one",
        )
        with running(worker):
            letters = read(stream, stream.dead_letter, -(-EVENTS // 7))
            scores = read(stream, stream.output, EVENTS - len(letters))
            assert worker.stop() == 0
        _says_what_turns_did(stream, collector, began, time.time_ns())
        _links_to_traces(collector)
        assert collector.resource["service.name"] == "scoring"
        assert collector.resource["service.instance.id"].endswith(f":{worker.http_port}")
        assert collector.scopes == {("odradek", SCHEMA)}
    for number, message in (scores | letters).items():
        assert [*(message.headers() or [])][: len(trace_headers(number))] == trace_headers(number)
    lines = [json.loads(line) for line in worker.log.read_text().splitlines()]
    ours = [line for line in lines if line["logger"] != "librdkafka"]
    assert not [line for line in ours if line["level"] != "info"]


def _says_what_turns_did(stream: Stream, collector: Collector, began: int, ended: int) -> None:
    turns = collector.turns()
    of_turns = [attributes(turn.attributes) for turn in turns]
    assert sum(each["messaging.batch.message_count"] for each in of_turns) == EVENTS
    dead = sum(each["odradek.records.dead_letter"] for each in of_turns)
    assert dead == -(-EVENTS // 7)
    verdicts = [f"odradek.records.{verdict}" for verdict in get_args(Verdict)]
    assert sum(each.get(of_one, 0) for each in of_turns for of_one in verdicts) == EVENTS - dead
    for turn, own in zip(turns, of_turns, strict=True):
        assert turn.name == f"process {stream.input}"
        assert turn.kind == turn.SPAN_KIND_CONSUMER
        assert not turn.parent_span_id
        consumer = {
            ("messaging.system", "kafka"),
            ("messaging.destination.name", stream.input),
            ("messaging.consumer.group.name", f"odradek-{stream.input}"),
            ("messaging.client.id", "one"),
        }
        process = {("messaging.operation.name", "process"), ("messaging.operation.type", "process")}
        assert own.items() >= consumer | process
        inside = collector.inside(turn)
        assert sorted(inside, key=STAGES.index) == STAGES
        polled, committed = (attributes(inside[stage].attributes) for stage in ("read", "settle"))
        assert polled.items() >= {*consumer, ("messaging.operation.type", "receive")}
        assert committed.items() >= {*consumer, ("messaging.operation.type", "settle")}
        assert attributes(inside["write"].attributes)["messaging.operation.type"] == "send"
        times = [
            at
            for stage in STAGES
            for at in (inside[stage].start_time_unix_nano, inside[stage].end_time_unix_nano)
        ]
        assert times == sorted(times)
        assert began < turn.start_time_unix_nano == times[0]
        assert times[-1] == turn.end_time_unix_nano < ended


def _links_to_traces(collector: Collector) -> None:
    """The first sampled events of each turn are linked, and all others counted."""
    linked: set[int] = set()
    counts = {"left_out": 0, "unsampled": 0, "malformed": 0}
    for turn in collector.turns():
        own = attributes(turn.attributes)
        assert len(turn.links) <= LINKS_MAX
        assert len(turn.links) == LINKS_MAX or own["odradek.links.left_out"] == 0
        for link in turn.links:
            number = int.from_bytes(link.trace_id) - 1
            assert int.from_bytes(link.span_id) == number + 1
            assert link.flags & 0x300 == 0x300  # It says whether it is remote, and it is.
            place = attributes(link.attributes)["messaging.destination.partition.id"]
            assert place == str(number % 3)
            linked.add(number)
        for name in counts:
            counts[name] += own[f"odradek.links.{name}"]
    assert linked
    assert {number % 5 for number in linked} <= {1, 2}
    of_a_kind = EVENTS // 5
    assert len(linked) + sum(counts.values()) == 4 * of_a_kind
    assert counts["unsampled"] > 0 < counts["malformed"]


def test_without_a_collector_all_events_are_scored_and_the_worker_stops_in_time(
    stream: Stream, model: Path, tmp_path: Path
):
    nobody = f"http://127.0.0.1:{free_port()}"
    worker = a_worker(
        stream,
        model,
        tmp_path,
        nobody,
        ODRADEK_BATCH_MAX="1",
        OTEL_BSP_MAX_QUEUE_SIZE="64",
        OTEL_BSP_MAX_EXPORT_BATCH_SIZE="32",
        OTEL_EXPORTER_OTLP_TIMEOUT="1",
    )
    stream.send([an_event(1, 2, 3, event_id=f"{n}") for n in range(EVENTS)])
    with running(worker):
        stream.read(Books(), lambda books: len(books.verdicts) == EVENTS)
        assert within(lambda: "Spans are lost" in worker.log.read_text())
        began = time.monotonic()
        assert worker.stop() == 0
        assert time.monotonic() - began < CLOSE_S + 5
    assert sum(stream.committed().values()) == EVENTS
    lines = worker.log.read_text().splitlines()
    spoken = [line for line in lines if "Spans" in line or "opentelemetry" in line]
    # The queue may be full before the first batch has failed: each is told, and told once.
    why = ("the collector did not take them", "they are made faster than they are sent")
    said = [sum(cause in line for line in spoken) for cause in why]
    assert said in ([1, 0], [0, 1], [1, 1])
    assert len(spoken) == sum(said)
