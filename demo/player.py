"""Plays planned events to a topic at a steady rate, and remembers what it sent where."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

from confluent_kafka import KafkaError, Message, Producer

from demo.events import Planned

SLICE_S = 0.01
QUIET = 2  # syslog's "critical": the terminal belongs to the view.


class Player(threading.Thread):
    """A thread that sends.

    `played` counts the records handed over, `sent` maps each acknowledged (partition, offset) to
    the name of what was sent there.
    """

    def __init__(self, servers: str, topic: str, planned: Iterable[Planned], rate: float) -> None:
        super().__init__(name="player", daemon=True)
        self.sent: dict[tuple[int, int], str] = {}
        self.played = 0
        self.failed: str | None = None
        self._topic = topic
        self._planned = iter(planned)
        self._rate = rate
        self._producer = Producer(
            {
                "bootstrap.servers": servers,
                "enable.idempotence": True,
                "linger.ms": 2,
                "log_level": QUIET,
            }
        )
        self._stopping = threading.Event()

    def run(self) -> None:
        started = time.monotonic()
        ended = False
        while not ended and not self._stopping.is_set():
            due = int((time.monotonic() - started) * self._rate)
            for _ in range(due - self.played):
                event = next(self._planned, None)
                if event is None:
                    ended = True
                    break
                self._send(event)
                self.played += 1
            self._producer.poll(0)
            self._stopping.wait(SLICE_S)
        if self._producer.flush(30):
            self.failed = "the broker did not acknowledge all events within 30 s"

    def stop(self) -> None:
        """Send no more."""
        self._stopping.set()

    def _send(self, event: Planned) -> None:
        def acknowledged(error: KafkaError | None, message: Message) -> None:
            partition, offset = message.partition(), message.offset()
            if error is not None or partition is None or offset is None:
                self.failed = str(error)
            else:
                self.sent[partition, offset] = event.name

        self._producer.produce(
            self._topic,
            event.value(int(time.time() * 1000)),
            key=event.event_id,
            on_delivery=acknowledged,
        )
