"""A source that did not poll for longer than max.poll.interval.ms: on Apache Kafka alone."""

from __future__ import annotations

import time
from contextlib import ExitStack

import pytest

from tests.broker.rigs import KafkaRig, read_turns, unique

MAX_POLL_S = 2.0
PROTOCOLS = {
    "classic": {
        "KAFKA_CONSUMER_SESSION_TIMEOUT_MS": "2000",
        "KAFKA_CONSUMER_HEARTBEAT_INTERVAL_MS": "300",
    },
    "consumer": {"KAFKA_CONSUMER_GROUP_PROTOCOL": "consumer"},
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_source_that_polled_too_late_says_so_commits_nothing_and_rejoins(
    kafka, protocol: str, caplog
):
    caplog.set_level("INFO")
    max_poll_ms = f"{MAX_POLL_S * 1000:.0f}"
    variables = {**PROTOCOLS[protocol], "KAFKA_CONSUMER_MAX_POLL_INTERVAL_MS": max_poll_ms}
    with ExitStack() as stack:
        rig = KafkaRig(kafka, stack, **variables)
        topic, group = rig.topic(), unique("group")
        for number in range(3):
            rig.produce(topic, b"%d" % number)
        source = rig.source(topic, group, batch_max=1)
        source.start(lambda _: None)
        done, in_hand = read_turns(source, 2)
        source.commit(done)
        time.sleep(MAX_POLL_S + 1.0)  # The client's own thread expels it meanwhile.

        again = read_turns(source, 1)
        assert f"maximum poll interval ({max_poll_ms}ms) exceeded" in caplog.text
        assert "Rejoining; the records in hand are dropped and read again" in caplog.text
        assert "Lost partitions [0]" in caplog.text
        assert again[0].offsets == {0: 2}, "the turn in hand is read again"
        assert not len(source.still_owned(in_hand).records)
        source.commit(in_hand)
        source.close(5.0)
        assert rig.committed(topic, group) == {0: 1}
