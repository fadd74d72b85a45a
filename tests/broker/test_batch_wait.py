"""`ODRADEK_BATCH_WAIT_MS`: by default nothing waits, and what is told to wait waits for company."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.broker.rigs import KafkaRig, read_turns, unique


@pytest.fixture
def rig(kafka) -> Iterator[KafkaRig]:
    with ExitStack() as stack:
        yield KafkaRig(kafka, stack)


def nothing(_: float) -> None:
    """Settle nothing: no turn is in flight."""


def test_the_first_record_of_a_turn_waits_for_others_until_the_turn_is_full(rig: KafkaRig):
    topic = rig.topic()
    source = rig.source(topic, unique("group"), batch_max=3, batch_wait_s=60.0)
    source.start(nothing)
    rig.produce(topic, b"1")

    def company() -> None:
        rig.produce(topic, b"2")
        rig.produce(topic, b"3")

    late = threading.Timer(0.3, company)
    late.start()
    (turn,) = read_turns(source, 1)
    late.join()
    assert turn.records.values == [b"1", b"2", b"3"]


def test_it_waits_no_longer_than_it_is_told_to(rig: KafkaRig):
    topic = rig.topic()
    source = rig.source(topic, unique("group"), batch_wait_s=0.5)
    source.start(nothing)
    rig.produce(topic, b"1")
    began = time.monotonic()
    (turn,) = read_turns(source, 1)
    assert turn.records.values == [b"1"]
    assert time.monotonic() - began >= 0.4
