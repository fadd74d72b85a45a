"""The lag while the source reads, and while it only keeps alive: nothing is fetched then."""

from __future__ import annotations

import json
from contextlib import ExitStack

import pytest
from confluent_kafka.admin import AdminClient

from schemas.errors import SettingsError
from tests.broker.rigs import KafkaRig, read_turns, unique
from tests.components import within
from worker.health import Health
from worker.kafka_client import BrokerWatch
from worker.lags import Lags
from worker.metrics import Metrics


@pytest.fixture
def rig(kafka):
    with ExitStack() as stack:
        yield KafkaRig(kafka, stack)


def test_the_lag_grows_while_a_worker_holds_and_goes_when_it_reads_on(rig: KafkaRig):
    topic = rig.topic(2)
    for partition in range(2):
        rig.produce(topic, b"before", partition=partition)
    source = rig.source(topic, unique("group"), **{"statistics.interval.ms": 100})
    rig.metrics.watch_partitions(source.lags, source.lags.positions)

    def lag(partition: int) -> float | None:
        labels = {"partition": str(partition)}
        return rig.metrics.registry.get_sample_value("odradek_lag_records", labels)

    def held_with(first: int, second: int) -> bool:
        source.keep_alive(0.01)
        return (lag(0), lag(1)) == (first, second)

    source.start(lambda _: None)
    read_turns(source, 2)
    assert within(lambda: held_with(0, 0))
    for _ in range(3):
        rig.produce(topic, b"meanwhile", partition=1)
    assert within(lambda: held_with(0, 3)), (lag(0), lag(1))
    rig.produce(topic, b"meanwhile", partition=0)
    assert within(lambda: held_with(1, 3)), (lag(0), lag(1))
    read_turns(source, 4)
    assert within(lambda: source.read(0.01) is None and (lag(0), lag(1)) == (0, 0))
    source.close(5.0)


def test_a_worker_does_not_end_for_want_of_its_lag(caplog):
    def no_admin() -> AdminClient:
        raise SettingsError("ssl.ca.location failed")

    metrics = Metrics()
    watch = BrokerWatch(Health(60.0, last_beat=0.0))
    lags = Lags("events", {0: 5}, watch, metrics.librdkafka, no_admin)
    brokers = {"b": {"state": "UP", "source": "learned"}}
    topics = {"events": {"partitions": {"0": {"hi_offset": 9}}}}
    for _ in range(4):
        lags.on_statistics(json.dumps({"brokers": brokers, "topics": topics}))
    assert lags() == {0: 4}
    (said,) = [one.message for one in caplog.records if "cannot be asked" in one.message]
    assert "ssl.ca.location failed. The lag stands still until something moves" in said
