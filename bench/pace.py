"""A steady producer, in a process of its own: a few events every 2 ms.

It never waits for whoever reads, so that a slow reader's queue shows as latency. For each event
it keeps when it was due and when it was handed to the Kafka client, by the monotonic clock, which
all processes of a machine share; the client sends at once (linger.ms=0).
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from confluent_kafka import KafkaError, Message, Producer

from bench.load import Kind, all_messages

Nanoseconds = npt.NDArray[np.int64]
START_IN_NS = 200_000_000
# Four events at a time, at 2,000 a second. One at a time makes 8,000 requests a second for broker,
# producer and reader on their one core; it was full, and every latency was the broker's.
TICKS_PER_S = 500
SERVE_EVERY = 64  # Events between two looks at the client's queue of reports.


@dataclass(frozen=True)
class Sent:
    """When each event was due and sent, int64 [n] of the monotonic clock."""

    due_ns: Nanoseconds
    sent_ns: Nanoseconds

    @classmethod
    def read(cls, path: Path) -> Sent:
        with np.load(path) as held:
            return cls(held["due_ns"], held["sent_ns"])

    @property
    def rate_per_s(self) -> float:
        """The rate that was kept."""
        return (len(self.sent_ns) - 1) / float(self.sent_ns[-1] - self.sent_ns[0]) * 1e9


def command(
    servers: str, topic: str, kind: Kind, count: int, rate_per_s: int, stamps: Path
) -> list[str]:
    """Return the command of a pacer, which writes `stamps` once all is acknowledged."""
    arguments = [servers, topic, kind, str(count), str(rate_per_s), str(stamps)]
    return [sys.executable, "-m", "bench.pace", *arguments]


def pace(servers: str, topic: str, kind: Kind, count: int, rate_per_s: int) -> Sent:
    """Produce `count` events at a steady rate, and return once all are acknowledged."""
    refusals: list[KafkaError] = []

    def on_delivery(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            refusals.append(error)

    producer = Producer(
        {
            "bootstrap.servers": servers,
            "enable.idempotence": True,  # Which also keeps their order.
            "linger.ms": 0,
            "delivery.report.only.error": True,
        }
    )
    messages = list(all_messages(kind, count))
    sent_ns = np.zeros(count, np.int64)
    start_ns = time.monotonic_ns() + START_IN_NS
    ticks = np.arange(count, dtype=np.int64) * TICKS_PER_S // rate_per_s
    due_ns = start_ns + ticks * 1_000_000_000 // TICKS_PER_S
    for row, (moment_ns, message) in enumerate(zip(due_ns.tolist(), messages, strict=True)):
        while (left_ns := moment_ns - time.monotonic_ns()) > 0:
            time.sleep(left_ns / 1e9)
        sent_ns[row] = time.monotonic_ns()
        producer.produce(topic, on_delivery=on_delivery, **message)
        if row % SERVE_EVERY == 0:
            producer.poll(0)
    if producer.flush(30) or refusals:
        raise SystemExit(f"not all events were acknowledged: {refusals[:1]}")
    return Sent(due_ns, sent_ns)


def main() -> None:
    servers, topic, kind, count, rate_per_s, stamps = sys.argv[1:]
    sent = pace(servers, topic, kind, int(count), int(rate_per_s))  # type: ignore[arg-type]
    # Under another name until it is whole: its being there says that all is done.
    unfinished = Path(stamps).with_suffix(".unfinished.npz")
    np.savez(unfinished, due_ns=sent.due_ns, sent_ns=sent.sent_ns)
    unfinished.rename(stamps)


if __name__ == "__main__":
    main()
