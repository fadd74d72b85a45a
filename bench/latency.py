"""Latency at a steady rate: from the hand-over to the Kafka client to the reading of the output.

The clock. `read` is the time from an event's hand-over to the producer's client until a reader of
the output topic, who reads committed records only, has it in hand: what somebody downstream sees,
transactions included. Both ends are stamped by one monotonic clock, to a microsecond. It holds
one more journey than the contender is to blame for, broker to reader; the row of raw forward has
the same. `appended` is the broker's stamp of the output (LogAppendTime, whole milliseconds, half
of one added) less the hand-over: it does not see the reader, and not the wait for a transaction
to be committed either.

The first seconds are not counted: a new process and a new topic are slow in both.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Latency:
    """One contender at a steady rate."""

    contender: str
    events: int
    rate_per_s: float
    sent_late_p99_ms: float
    read_ms: Quantiles
    appended_ms: Quantiles
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
    """Return the latencies as read and as appended, and of how many events they are."""
    rows_by_key = {event_id(row).encode(): row for row in range(len(sent.sent_ns))}
    rows = np.array([rows_by_key[message.key() or b""] for message in seen.messages])
    sent_ns = sent.sent_ns[rows]
    stamps_ms = np.array([message.timestamp()[1] for message in seen.messages])
    appended_ms = stamps_ms + 0.5 - (sent_ns + sent.wall_ahead_ns) / 1e6
    counted = rows >= settle_events
    read = Quantiles.of((seen.read_ns - sent_ns)[counted] / 1e6)
    return read, Quantiles.of(appended_ms[counted]), int(counted.sum())


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
