"""The load: events that carry their number, at a steady rate, with all that real topics bring.

Keys, a share of rubbish below what trips a breaker, tombstones, headers, and event times that
jump by hours. The sender's own retries write nothing twice: it is idempotent and waits for ever.
"""

from __future__ import annotations

import json
import random
import re
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from confluent_kafka import KafkaError, Message, Producer

from tests.faults.entries import Position

SLICE_S = 0.01
FLUSH_S = 60.0
KEYS = 500
RUBBISH_SHARE = 0.05
TOMBSTONE_SHARE = 0.005
HEADERS_SHARE = 0.02
NUMBER_HEADER = "number"
NUMBER = re.compile(rb"n(\d{6,})")
HOUR_MS = 3_600_000
CLOCK_JUMPS_MS = (0, 0, 0, 0, -24 * HOUR_MS, -HOUR_MS, HOUR_MS, 400 * 24 * HOUR_MS)
OVERSIZE_BYTES = 40_000  # Beyond what `arena` lets its output topics take.


class Planned(NamedTuple):
    """One record to be sent."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


def plan(
    number: int,
    rng: random.Random,
    now_ms: int,
    *,
    oversize: bool = False,
    padding_bytes: int = 0,
) -> Planned:
    """Return the record of this number: mostly an event, now and then something worse."""
    name = f"n{number:06d}"
    key = f"k{rng.randrange(KEYS)}".encode()
    headers = [(NUMBER_HEADER, name.encode()), ("trace", b"0af7")]
    draw = rng.random()
    if oversize and draw < 0.5:
        headers.append(("ballast", b"x" * OVERSIZE_BYTES))
    elif draw < TOMBSTONE_SHARE:
        return Planned(key, None, headers)  # Only its header can tell its number.
    elif draw > HEADERS_SHARE:
        headers = []
    if rng.random() < RUBBISH_SHARE:
        ballast = "x" * OVERSIZE_BYTES if oversize else ""
        return Planned(key, f"rubbish {name} {ballast}".encode(), headers)
    event: dict[str, object] = {
        "event_id": name,
        "timestamp": now_ms + rng.choice(CLOCK_JUMPS_MS),
        "features": [round(rng.gauss(0, 1), 3) for _ in range(3)],
    }
    if padding_bytes:
        event["padding"] = "x" * padding_bytes  # Unknown fields are ignored.
    return Planned(key, json.dumps(event).encode(), headers)


def number_in(data: bytes | None) -> int | None:
    """Return the number that a value, an event id or a header carries."""
    found = NUMBER.search(data) if data else None
    return int(found.group(1)) if found else None


def number_of(headers: list[tuple[str, bytes]], value: bytes | None) -> int | None:
    """Return the number of a record, from wherever it still carries one."""
    in_header = number_in(dict(headers).get(NUMBER_HEADER))
    return in_header if in_header is not None else number_in(value)


class Sender(threading.Thread):
    """Sends until `stop`. `acknowledged` holds (number, position, monotonic seconds) to be taken.

    A record that Kafka refused for good, as when its topic is deleted, is counted in `refused`:
    whether it came through all the same, the input topic itself will tell.
    """

    def __init__(self, servers: str, topic: str, rate: float, seed: int) -> None:
        super().__init__(name="sender", daemon=True)
        self.acknowledged: deque[tuple[int, Position, float]] = deque()
        self.number = 0
        self.refused = 0
        self.incarnation = 0
        self.oversize = False
        self.padding_bytes = 0
        self.rate = rate
        self._servers = servers
        self._topic = topic
        self._rng = random.Random(seed)
        self._stopping = threading.Event()
        self._holding = threading.Event()
        self._idle = threading.Event()
        self._producer = self._new_producer()

    def run(self) -> None:
        due = 0.0
        last = time.monotonic()
        while not self._stopping.is_set():
            now = time.monotonic()
            due += 0 if self._holding.is_set() else (now - last) * self.rate
            last = now
            while due >= 1 and not self._stopping.is_set():
                due -= 1
                self._send()
            self._producer.poll(0)
            if self._holding.is_set() and not self._idle.is_set():
                self._producer.flush(FLUSH_S)
                self._idle.set()
            self._stopping.wait(SLICE_S)
        self._producer.flush(FLUSH_S)

    def stop(self) -> None:
        """Send no more, and wait for what is under way."""
        self._stopping.set()
        self.join()

    def hold(self) -> None:
        """Pause, and return when nothing is under way."""
        self._idle.clear()
        self._holding.set()
        self._idle.wait(FLUSH_S + 5)

    def go_on(self, *, new_incarnation: bool = False) -> None:
        """Send again; to a topic that was made again, with a producer that knows only this one."""
        if new_incarnation:
            self.incarnation += 1
            self._producer = self._new_producer()
        self._holding.clear()

    def _new_producer(self) -> Producer:
        return Producer(
            {
                "bootstrap.servers": self._servers,
                "enable.idempotence": True,
                "acks": "all",
                "message.timeout.ms": 0,
                "linger.ms": 2,
                "reconnect.backoff.max.ms": 250,
                "topic.metadata.refresh.interval.ms": 1000,
                "queue.buffering.max.messages": 1_000_000,
                "partitioner": "murmur2_random",
                "log_level": 2,
            }
        )

    def _send(self) -> None:
        planned = plan(
            self.number,
            self._rng,
            int(time.time() * 1000),
            oversize=self.oversize,
            padding_bytes=self.padding_bytes,
        )
        try:
            self._producer.produce(
                self._topic,
                planned.value,
                planned.key,
                headers=list(planned.headers),
                on_delivery=self._report(self.number),
            )
        except BufferError:
            self._producer.poll(SLICE_S)
            return
        self.number += 1

    def _report(self, number: int) -> Callable[[KafkaError | None, Message], None]:
        incarnation = self.incarnation

        def acknowledged(error: KafkaError | None, message: Message) -> None:
            partition, offset = message.partition(), message.offset()
            if error is not None or partition is None or offset is None:
                self.refused += 1
                return
            position = Position(partition, offset, incarnation)
            self.acknowledged.append((number, position, time.monotonic()))

        return acknowledged
