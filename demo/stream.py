"""Streams the shipped collisions to a topic for as long as it runs: `python -m demo.stream`.

What the stack's player runs. Ordinary collisions that no model was trained on, over and over, with
a few anomalies and a little rubbish among them. Every event has an id of its own, over restarts
too. The broker is named by the same `KAFKA_*` variables as the worker's.

Nothing is remembered of what was sent: the books of `make demo` are kept elsewhere. While the
broker is away the stream stands still, and afterwards it does not make up for what was not sent.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from uuid import uuid4

from confluent_kafka import KafkaError, Message, Producer

from demo.events import ANOMALIES, NORMAL, RUBBISH_VALUES, Planned, Shipped, load
from worker import logs
from worker.kafka_client import Properties
from worker.kafka_properties import kafka_properties

SLICE_S = 0.05
BEHIND_MAX_S = 1.0
REPORT_S = 60.0
# Above it the stream waits for the broker: a minute at the default rate, a few MB.
UNACKNOWLEDGED_MAX = 12_000


def endless(shipped: Shipped, anomalies: float, rubbish: float, run: str) -> Iterator[Planned]:
    """Yield events for ever, of which about these shares are anomalies and no events at all.

    `run` is a part of every id; with another one, no id ever comes twice.
    """
    random_ = random.Random(run)
    rows = [(kind, row) for kind in ANOMALIES for row in range(len(shipped.stream[kind]))]
    ordinary = len(shipped.stream[NORMAL])
    number = 0
    while True:
        order = random_.sample(range(ordinary), ordinary)
        for row in order:
            kind, drawn = NORMAL, random_.random()
            if drawn < anomalies:
                kind, row = random_.choice(rows)  # In place of an ordinary one.
            elif drawn < anomalies + rubbish:
                kind = "rubbish"
            name = f"{kind}-{row:05d}"
            event_id = f"{name}-{run}-{number:09d}"
            number += 1
            if kind == "rubbish":
                yield Planned(name, event_id, None, RUBBISH_VALUES[row % len(RUBBISH_VALUES)])
            else:
                yield Planned(name, event_id, shipped.stream[kind][row].tolist())


class Stream:
    """Sends events at a rate, in events a second, until it is told to stop."""

    def __init__(self, properties: Properties, topic: str, rate: float) -> None:
        self.acknowledged = 0
        self.failed = 0
        # The worker's producer is told of failures alone; here acknowledgements are counted.
        counted = {**properties, "delivery.report.only.error": False}
        self._producer = Producer(counted, logger=logging.getLogger("librdkafka"))
        self._topic = topic
        self._rate = rate
        self._stopping = threading.Event()

    def stop(self, *_: object) -> None:
        """Send no more; safe in a signal handler and in another thread."""
        self._stopping.set()

    def run(self, planned: Iterator[Planned]) -> None:
        """Send until stopped or until there are no more; return once all are acknowledged."""
        paced_s = reported_s = time.monotonic()
        while not self._stopping.is_set():
            now_s = time.monotonic()
            paced_s = max(paced_s, now_s - BEHIND_MAX_S)
            while paced_s < now_s and len(self._producer) < UNACKNOWLEDGED_MAX:
                event = next(planned, None)
                if event is None:
                    self._stopping.set()
                    break
                self._send(event)
                paced_s += 1 / self._rate
            if now_s - reported_s >= REPORT_S:
                reported_s = now_s
                print(f"acknowledged {self.acknowledged:,} events, {self.failed:,} failed")
            self._producer.poll(0)
            self._stopping.wait(SLICE_S)
        self._producer.flush(5)

    def _send(self, event: Planned) -> None:
        self._producer.produce(
            self._topic,
            event.value(int(time.time() * 1000)),
            key=event.event_id,
            on_delivery=self._delivered,
        )

    def _delivered(self, error: KafkaError | None, _: Message) -> None:
        self.acknowledged += error is None
        self.failed += error is not None


def main() -> int:
    """Stream until SIGTERM or Ctrl-C; return the exit code, 2 for a setting that is wrong."""
    arguments = _arguments()
    logs.configure("text", "info")
    given, problems = kafka_properties(os.environ)
    if problems or "bootstrap.servers" not in given.producer:
        said = "; ".join(problems) or "KAFKA_BOOTSTRAP_SERVERS is not set"
        print(f"error: {said}; nothing is streamed", file=sys.stderr)
        return 2
    stream = Stream(given.producer, arguments.topic, arguments.rate)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stream.stop)
    shares = f"anomalies {arguments.anomalies:g}, rubbish {arguments.rubbish:g}"
    print(f"streaming {arguments.rate:g} events/s to {arguments.topic}; {shares}")
    stream.run(endless(load(), arguments.anomalies, arguments.rubbish, uuid4().hex[:8]))
    print(f"stopped; acknowledged {stream.acknowledged:,} events, {stream.failed:,} failed")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m demo.stream", description=__doc__)
    parser.add_argument("--topic", default="events")
    parser.add_argument("--rate", type=float, default=200, help="events a second (default 200)")
    # So few that a worker's flag rate stays near its target, and still several a minute.
    parser.add_argument("--anomalies", type=float, default=0.0005, help="their share (0.0005)")
    parser.add_argument("--rubbish", type=float, default=0.0001, help="its share (0.0001)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
