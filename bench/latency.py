"""Latency at a steady rate: from the moment an event is due to the reading of its output.

The time runs until a reader of the output topic, who reads committed records only, has the output
in hand: what somebody downstream sees, transactions included. It runs from when the event was due,
so that a producer that is kept waiting shows as latency and not as a lighter load; how late the
events were handed to the producer's client is told beside it (`late`), since that part is no
contender's. Both ends are of one monotonic clock. It holds one more journey than the contender is
to blame for, broker to reader; the row of raw forward has the same. The broker's own stamps are
whole milliseconds: too coarse for what is timed here.

The first seconds are not counted: a new process and a new topic are slow in both. 36,000 events
are: a p99.9 rests on the 36 slowest, which are often those of one pause of the machine. Believe its
size, and of the highest nothing.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter

import numpy as np
import numpy.typing as npt
from confluent_kafka import Consumer, Message, TopicPartition

from bench.contender import ContenderFailed, Spent
from bench.load import event_id
from bench.pace import Sent

RATE_PER_S = 2_000
SECONDS, SETTLE_SECONDS = 20, 2
# A new broker is short of compiled code: its first seconds at this rate gave up to 5 s.
WARM_SECONDS = 12
QUICK_SECONDS, QUICK_SETTLE_SECONDS = 3, 1
# How long after the last event the last output may come.
LATEST_S = 30.0
RATE_KEPT = 0.95


@dataclass(frozen=True)
class Quantiles:
    """Of latencies, in milliseconds."""

    p50: float
    p99: float
    p999: float
    highest: float

    @classmethod
    def of(cls, values_ms: npt.NDArray[np.float64]) -> Quantiles:
        return cls(*np.percentile(values_ms, [50, 99, 99.9, 100]).tolist())


P50, P99, P999 = attrgetter("p50"), attrgetter("p99"), attrgetter("p999")


@dataclass(frozen=True)
class Latency:
    """One contender, once at a steady rate."""

    contender: str
    repeat: int
    events: int
    rate_per_s: float
    late_ms: Quantiles  # Of the producer.
    read_ms: Quantiles
    spent: Spent


@dataclass(frozen=True)
class Seen:
    """All outputs in the order of reading, and when each was read, int64 [n]."""

    messages: Sequence[Message]
    read_ns: npt.NDArray[np.int64]


class Listener:
    """Reads one output topic from its start; belongs to no group."""

    def __init__(self, bootstrap_servers: str, topic: str) -> None:
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap_servers,
                "group.id": "bench-latency",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "log_level": 4,
            }
        )
        self._consumer.assign([TopicPartition(topic, 0, 0)])

    def close(self) -> None:
        self._consumer.close()

    def listen(self, count: int, seconds: float, raise_if_ended: Callable[[], None]) -> Seen:
        """Read `count` outputs, for `seconds` and a while longer.

        Raises:
            ContenderFailed: they have not come by then.
        """
        messages: list[Message] = []
        read_ns: list[int] = []
        deadline_s = time.monotonic() + seconds + LATEST_S
        while len(messages) < count:
            first = self._consumer.poll(0.1)
            if first is None:
                raise_if_ended()
                if time.monotonic() > deadline_s:
                    raise ContenderFailed(
                        f"{len(messages):,} of {count:,} outputs have come {LATEST_S:g} s after "
                        "the last event; giving up"
                    )
                continue
            batch = [first, *self._consumer.consume(10_000, 0)]
            now_ns = time.monotonic_ns()
            if failed := [error for message in batch if (error := message.error())]:
                raise ContenderFailed(f"the outputs cannot be read: {failed[0]}")
            messages += batch
            read_ns += [now_ns] * len(batch)
        return Seen(messages, np.array(read_ns))


def latencies(seen: Seen, sent: Sent, settle_events: int) -> tuple[Quantiles, Quantiles, int]:
    """Return the latencies, how late the producer was, and of how many events they are."""
    rows_by_key = {event_id(row).encode(): row for row in range(len(sent.due_ns))}
    rows = np.array([rows_by_key[message.key() or b""] for message in seen.messages])
    counted = rows >= settle_events
    read = Quantiles.of((seen.read_ns - sent.due_ns[rows])[counted] / 1e6)
    late = Quantiles.of((sent.sent_ns - sent.due_ns)[settle_events:] / 1e6)
    return read, late, int(counted.sum())


def finished(pacer: subprocess.Popen[bytes], rate_per_s: int, sent: Callable[[], Sent]) -> Sent:
    """Wait for the pacer, and return its stamps.

    Raises:
        ContenderFailed: it failed, or did not keep its rate, which is no contender's fault.
    """
    try:
        status = pacer.wait(LATEST_S)
    except subprocess.TimeoutExpired:
        raise ContenderFailed("the steady producer's last events are unacknowledged") from None
    if status:
        raise ContenderFailed(f"the steady producer ended with status {status}")
    stamps = sent()
    if stamps.rate_per_s < RATE_KEPT * rate_per_s:
        raise ContenderFailed(
            f"the steady producer kept {stamps.rate_per_s:,.0f} events/s, wanted {rate_per_s:,}: "
            "the machine is too busy for latencies"
        )
    return stamps
