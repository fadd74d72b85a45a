"""The lag while the source reads, and while it only keeps alive: nothing is fetched then."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from tests.broker.rigs import KafkaRig, read_turns, unique
from tests.components import within


@pytest.fixture
def rig(kafka):
    with ExitStack() as stack:
        yield KafkaRig(kafka, stack)


def test_the_lag_grows_while_a_worker_holds_and_goes_when_it_reads_on(rig: KafkaRig):
    topic = rig.topic(2)
    for partition in range(2):
        rig.produce(topic, b"before", partition=partition)
    source = rig.source(topic, unique("group"), **{"statistics.interval.ms": 100})
    rig.metrics.watch_lag(source.lags, source.lags.partitions)

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
    assert within(lambda: source.read(0.01) or (lag(0), lag(1)) == (0, 0))
    source.close(5.0)
