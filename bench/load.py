"""The load of the benchmarks: events as Kafka messages, and topics full of them.

The kinds of the same events: `json`, whose features are an array; `named`, whose features are an
object; `packed`, 57 little-endian float32 with the id as the key and the time as the record's;
`traced`, as `json`, with a W3C traceparent header on each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from confluent_kafka import KafkaError, Message, Producer

from bench.model import FEATURES, normal_events
from schemas.calibration import Floats
from schemas.event import EventLayout
from schemas.write_event import encode_event

Kind = Literal["json", "named", "packed", "traced"]
SEED = 7
FIRST_TIMESTAMP_MS = 1_767_225_600_000  # 2026-01-01
# The events' times are past what a topic keeps by default.
TOPIC = {"retention.ms": "-1"}
_AT_ONCE = 10_000
_ARRAY = EventLayout()
_NAMED = EventLayout(features=())
_PATHS = [("features", f"x{place}") for place in range(FEATURES)]  # As the model names them.


@dataclass(frozen=True)
class Load:
    """What stands in the topic, the event of row i at offset i: `features` [n, 57] as read."""

    topic: str
    features: Floats
    kind: Kind = "json"

    def __len__(self) -> int:
        return len(self.features)


def event_id(row: int) -> str:
    return f"e-{row:07}"


def headers(kind: Kind, row: int) -> list[tuple[str, bytes]] | None:
    """Return the headers of an event, which its output carries too."""
    if kind != "traced":
        return None
    # W3C: version, trace id, span id, sampled; 55 bytes.
    return [("traceparent", b"00-%032x-%016x-01" % (row + 1, row + 1))]


def fill(bootstrap_servers: str, topic: str, count: int, kind: Kind = "json") -> Load:
    """Write `count` events, each with its id as its key, and return once all are acknowledged."""
    refusals: list[KafkaError] = []

    def on_delivery(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            refusals.append(error)

    producer = Producer(
        {
            "bootstrap.servers": bootstrap_servers,
            "enable.idempotence": True,  # Which also keeps their order.
            "queue.buffering.max.messages": 2 * _AT_ONCE,
            "queue.buffering.max.kbytes": 65_536,
            "linger.ms": 50,
            "delivery.report.only.error": True,
            "log_level": 3,  # A new broker is not ready for idempotence at once; it is asked again.
        }
    )
    features = []
    for start, rows in _blocks(count):
        for message in _messages(kind, start, rows):
            producer.produce(topic, on_delivery=on_delivery, **message)
        if left := producer.flush():
            raise RuntimeError(f"the load was not written: {left} events are unacknowledged")
        if refusals:
            raise RuntimeError(f"the load was not written: {refusals[0]}")
        features.append(rows.astype(np.float32))
    return Load(topic, np.concatenate(features), kind)


def planned(topic: str, count: int, kind: Kind = "json") -> Load:
    """Return the load that the topic will hold once `all_messages` have been written to it."""
    features = [rows.astype(np.float32) for _, rows in _blocks(count)]
    return Load(topic, np.concatenate(features), kind)


def all_messages(kind: Kind, count: int) -> Iterator[dict[str, Any]]:
    """Yield the arguments of `Producer.produce` for each event."""
    for start, rows in _blocks(count):
        yield from _messages(kind, start, rows)


def _blocks(count: int) -> Iterator[tuple[int, npt.NDArray[np.float64]]]:
    for start in range(0, count, _AT_ONCE):
        yield start, normal_events(min(_AT_ONCE, count - start), SEED + start)


def _messages(kind: Kind, start: int, rows: npt.NDArray[np.float64]) -> Iterator[dict[str, Any]]:
    if kind == "packed":
        for row, packed in enumerate(rows.astype("<f4"), start):
            key, time_ms = event_id(row).encode(), FIRST_TIMESTAMP_MS + row
            yield {"key": key, "value": packed.tobytes(), "timestamp": time_ms}
        return
    for row, features in enumerate(rows.tolist(), start):
        name = event_id(row)
        value = encode_event(
            _NAMED if kind == "named" else _ARRAY,
            _PATHS,
            event_id=name,
            timestamp_ms=FIRST_TIMESTAMP_MS + row,
            features=features,
        )
        yield {"key": name.encode(), "value": value, "headers": headers(kind, row)}
