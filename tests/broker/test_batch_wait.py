"""`ODRADEK_BATCH_WAIT_MS`: by default nothing waits; what is told to waits for company, once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.broker.rigs import KafkaRig, read_turns, unique
from worker.service import Source

SLACK_S = 2.0  # A busy machine's.


@pytest.fixture
def rig(kafka) -> Iterator[KafkaRig]:
    with ExitStack() as stack:
        yield KafkaRig(kafka, stack)


def reading(rig: KafkaRig, topic: str, batch_wait_s: float, batch_max: int = 3) -> Source:
    """A source that has read a full turn, so that nothing but the next records is waited for."""
    for _ in range(batch_max):
        rig.produce(topic, b"0")
    source = rig.source(topic, unique("group"), batch_max, batch_wait_s=batch_wait_s)
    source.start(lambda _: None)
    read_turns(source, batch_max)
    return source


def test_by_default_a_record_waits_for_no_other(rig: KafkaRig):
    topic = rig.topic()
    source = reading(rig, topic, batch_wait_s=0.0)
    rig.produce(topic, b"1")
    (first,) = read_turns(source, 1)
    rig.produce(topic, b"2")
    (second,) = read_turns(source, 1)
    assert (first.records.values, second.records.values) == ([b"1"], [b"2"])


def test_the_first_record_waits_for_others_until_the_turn_is_full(rig: KafkaRig):
    topic = rig.topic()
    source = reading(rig, topic, batch_wait_s=30.0)
    rig.produce(topic, b"1")

    def company() -> None:
        rig.produce(topic, b"2")
        rig.produce(topic, b"3")

    late = threading.Timer(0.5, company)
    late.start()
    began = time.monotonic()
    (turn,) = read_turns(source, 1)
    late.join()
    assert turn.records.values == [b"1", b"2", b"3"]
    assert 0.4 < time.monotonic() - began < 0.5 + SLACK_S


def test_it_waits_as_long_as_it_is_told_to_and_no_longer(rig: KafkaRig):
    topic = rig.topic()
    source = reading(rig, topic, batch_wait_s=1.0)
    rig.produce(topic, b"1")
    began = time.monotonic()
    (turn,) = read_turns(source, 1)
    assert turn.records.values == [b"1"]
    assert 0.9 < time.monotonic() - began < 1.0 + SLACK_S


def test_with_a_turn_in_flight_nobody_waits_and_nothing_is_lost(rig: KafkaRig):
    topic = rig.topic()
    source = reading(rig, topic, batch_wait_s=1.0)
    rig.produce(topic, b"1")
    began = time.monotonic()
    while time.monotonic() - began < 0.5:
        assert source.read(0) is None, "fewer than a full turn are kept back: settle first"
    rig.produce(topic, b"2")
    (turn,) = read_turns(source, 1)
    assert turn.records.values == [b"1", b"2"]


def test_with_a_turn_in_flight_a_full_turn_is_returned_at_once(rig: KafkaRig):
    topic = rig.topic()
    source = reading(rig, topic, batch_wait_s=30.0)
    for value in (b"1", b"2", b"3", b"4"):
        rig.produce(topic, value)
    deadline = time.monotonic() + 10
    while (turn := source.read(0)) is None:
        assert time.monotonic() < deadline
    assert turn.records.values == [b"1", b"2", b"3"]
