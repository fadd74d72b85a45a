"""The load of the benchmarks: a topic of events, written before anything is measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from confluent_kafka import KafkaError, Message, Producer

from bench.model import normal_events
from schemas.calibration import Floats
from schemas.event import EventLayout
from schemas.write_event import encode_event

SEED = 7
FIRST_TIMESTAMP_MS = 1_767_225_600_000  # 2026-01-01
_AT_ONCE = 10_000
_LAYOUT = EventLayout()


@dataclass(frozen=True)
class Load:
    """What stands in the topic, the event of row i at offset i: `features` [n, 57] as read."""

    topic: str
    features: Floats
    mean_bytes: float

    def __len__(self) -> int:
        return len(self.features)


def event_id(row: int) -> str:
    return f"e-{row:07}"


def fill(bootstrap_servers: str, topic: str, count: int) -> Load:
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
    blocks, written_bytes = [], 0
    for start in range(0, count, _AT_ONCE):
        rows = normal_events(min(_AT_ONCE, count - start), SEED + start)
        messages = list(_messages(start, rows.tolist()))
        written_bytes += sum(len(message["value"]) for message in messages)
        queued = producer.produce_batch(topic, messages, on_delivery=on_delivery)
        producer.flush()
        if refusals or queued != len(messages):
            raise RuntimeError(f"the load was not written: {refusals[:1]}, {queued} queued")
        blocks.append(rows.astype(np.float32))
    return Load(topic, np.concatenate(blocks), written_bytes / count)


def _messages(start: int, rows: list[list[float]]) -> Iterator[dict[str, bytes]]:
    for row, features in enumerate(rows, start):
        name = event_id(row)
        value = encode_event(
            _LAYOUT,
            (),
            event_id=name,
            timestamp_ms=FIRST_TIMESTAMP_MS + row,
            features=features,
        )
        yield {"key": name.encode(), "value": value}
