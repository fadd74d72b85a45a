"""librdkafka's statistics as metrics: the units, and which broker speaks for all."""

from __future__ import annotations

import json

from prometheus_client import CollectorRegistry

from worker.librdkafka_metrics import LibrdkafkaMetrics
from worker.statistics import read_statistics


def a_broker(state: str = "UP", source: str = "learned", **more: object) -> dict[str, object]:
    times = {"avg": 1_000, "p99": 4_000}
    return {"state": state, "source": source, "rtt": times, "throttle": {"avg": 0}, **more}


BROKERS = {
    "a": a_broker(outbuf_cnt=1, waitresp_cnt=2, txerrs=3, rxerrs=4, req_timeouts=5),
    "b": a_broker("CONNECT", rtt={"avg": 9_000, "p99": 90_000}, throttle={"avg": 7}),
    "c": a_broker("DOWN", "configured"),
    "coordinator": a_broker(source="logical", rtt={"avg": 2_000, "p99": 3_000}, waitresp_cnt=1),
    "internal": a_broker("INIT", "internal"),
}


def told(client: str) -> CollectorRegistry:
    registry = CollectorRegistry()
    topics = {"t": {"partitions": {"0": {"fetchq_cnt": 8}, "-1": {"fetchq_cnt": 2}}}}
    text = json.dumps({"brokers": BROKERS, "topics": topics, "msg_cnt": 6, "msg_size": 600})
    LibrdkafkaMetrics(registry).hear(client, read_statistics(text))
    return registry


def test_what_a_producer_tells():
    registry = told("producer")

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"odradek_kafka_{name}", {"client": "producer", **labels})

    assert value("outbound_messages") == 6
    assert value("outbound_bytes") == 600
    assert value("prefetched_messages") == 10
    assert value("waiting_requests") == 4
    assert value("round_trip_seconds") == 0.009
    assert value("round_trip_p99_seconds") == 0.09
    assert value("throttle_seconds") == 0.007
    assert [value("brokers", state=s) for s in ("up", "connecting", "down")] == [1, 1, 1]
    errors = [value("request_errors_total", kind=k) for k in ("transmit", "receive", "timeout")]
    assert errors == [3, 4, 5]


def test_of_a_consumer_the_coordinators_round_trip_counts():
    """A fetch waits at the broker until there is something, or half a second."""
    value = told("consumer").get_sample_value
    assert value("odradek_kafka_round_trip_seconds", {"client": "consumer"}) == 0.002
    assert value("odradek_kafka_round_trip_seconds", {"client": "producer"}) is None
