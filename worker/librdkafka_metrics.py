"""What of librdkafka's statistics is worth an alert or a look, by client.

Of the brokers, the slowest speaks for all: their number is the cluster's affair, not ours. The
client counts from 0 again where the worker takes a new one, as after a restart.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import Literal

from prometheus_client import CollectorRegistry

from worker import declared_kafka as declared
from worker.metric import Asked, Series
from worker.statistics import Statistics

Client = Literal["consumer", "producer"]

_METRICS = (
    declared.KAFKA_STATISTICS_AT,
    declared.KAFKA_BROKERS,
    declared.KAFKA_ROUND_TRIP,
    declared.KAFKA_ROUND_TRIP_P99,
    declared.KAFKA_THROTTLE,
    declared.KAFKA_OUTBOUND,
    declared.KAFKA_OUTBOUND_BYTES,
    declared.KAFKA_PREFETCHED,
    declared.KAFKA_REQUESTS,
    declared.KAFKA_ERRORS,
)
_DOWN = ("INIT", "DOWN")


class LibrdkafkaMetrics:
    """The latest statistics of each client, and when they were heard."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._latest: dict[Client, tuple[float, Statistics]] = {}
        Asked(registry, _METRICS, self._ask)

    def hear(self, client: Client, statistics: Statistics) -> None:
        """Take note of a client's statistics."""
        self._latest = {**self._latest, client: (time.time(), statistics)}

    def _ask(self) -> Iterator[Series]:
        for client, (at, statistics) in self._latest.items():
            yield from _series(client, at, statistics)


def _series(client: Client, at: float, statistics: Statistics) -> Iterator[Series]:
    own = (client,)
    brokers = statistics.known_brokers()
    states = Counter(_state(broker.state) for broker in brokers)
    yield Series(declared.KAFKA_STATISTICS_AT, at, own)
    for state in ("up", "connecting", "down"):
        yield Series(declared.KAFKA_BROKERS, states[state], (client, state))
    # A fetch on a quiet topic waits at the broker: of the consumer, the coordinator's tells more.
    timed = statistics.coordinators() if client == "consumer" else [*statistics.brokers.values()]
    # librdkafka tells microseconds of a round trip, and milliseconds of throttling.
    round_trip = max((broker.rtt.avg for broker in timed), default=0) / 1e6
    p99 = max((broker.rtt.p99 for broker in timed), default=0) / 1e6
    throttle = max((broker.throttle.avg for broker in brokers), default=0) / 1e3
    yield Series(declared.KAFKA_ROUND_TRIP, round_trip, own)
    yield Series(declared.KAFKA_ROUND_TRIP_P99, p99, own)
    yield Series(declared.KAFKA_THROTTLE, throttle, own)
    yield Series(declared.KAFKA_OUTBOUND, statistics.msg_cnt, own)
    yield Series(declared.KAFKA_OUTBOUND_BYTES, statistics.msg_size, own)
    yield Series(declared.KAFKA_PREFETCHED, statistics.prefetched(), own)
    brokers = [*statistics.brokers.values()]
    waiting = sum(broker.outbuf_cnt + broker.waitresp_cnt for broker in brokers)
    yield Series(declared.KAFKA_REQUESTS, waiting, own)
    errors = {
        "transmit": sum(broker.txerrs for broker in brokers),
        "receive": sum(broker.rxerrs for broker in brokers),
        "timeout": sum(broker.req_timeouts for broker in brokers),
    }
    for kind, number in errors.items():
        yield Series(declared.KAFKA_ERRORS, number, (client, kind))


def _state(state: str) -> str:
    """Return a connection's state in three words; between the first and the last it connects."""
    if state == "UP":
        return "up"
    return "down" if state in _DOWN else "connecting"
