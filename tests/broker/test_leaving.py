"""Who leaves is heard to leave, and who is forgotten joins anew: on Apache Kafka alone."""

from __future__ import annotations

import time
from contextlib import ExitStack

import pytest
from confluent_kafka.admin import AdminClient

from tests.broker.rigs import KafkaRig, read_turns, unique
from tests.components import WAIT_S, within
from worker import membership
from worker.service import Source

HEARD_S = 3.0  # A session, which is what a silent leave would take, is 45 s.


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
@pytest.mark.parametrize("which", ["idle", "busy"])
def test_one_that_closes_is_out_of_the_group_at_once(kafka, protocol: str, which: str):
    """The idle one has no partitions: librdkafka closes such a member without leaving."""
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    with ExitStack() as stack:
        rig = KafkaRig(kafka, stack, KAFKA_CONSUMER_GROUP_PROTOCOL=protocol)
        topic, group = rig.topic(), unique("group")

        def assigned() -> list[int]:
            """How many partitions each member has, in order; none while they are dealt."""
            asked = admin.describe_consumer_groups([group], request_timeout=WAIT_S)
            members = asked[group].result().members
            return sorted(len(member.assignment.topic_partitions) for member in members)

        def both_are_in() -> bool:
            busy.extend(source for source in sources if source.read(0.05) is not None)
            return bool(busy) and assigned() == [0, 1]

        rig.produce(topic, b"it goes to the busy one")
        busy: list[Source] = []
        sources = [rig.source(topic, group) for _ in range(2)]
        for source in sources:
            source.start(lambda _: None)
        assert within(both_are_in, WAIT_S), assigned()
        (idle,) = [source for source in sources if source is not busy[-1]]
        (idle if which == "idle" else busy[-1]).close(5.0)
        assert within(lambda: len(assigned()) == 1, HEARD_S), assigned()


def test_one_that_its_group_has_forgotten_joins_anew_and_reads_again(kafka, monkeypatch, caplog):
    monkeypatch.setattr(membership, "FORGOTTEN_S", 0.1)
    with ExitStack() as stack:
        rig = KafkaRig(kafka, stack)
        topic, group = rig.topic(), unique("group")
        rig.produce(topic, b"one")
        source = rig.source(topic, group)
        source.start(lambda _: None)
        (turn,) = read_turns(source, 1)
        source.refused_as_unknown()
        time.sleep(0.2)
        source.refused_as_unknown()
        (again,) = read_turns(source, 1)
        assert "does not notice. Joining anew" in caplog.text
        assert not len(source.still_owned(turn).records)
        source.commit(again)
        source.close(5.0)
        assert rig.committed(topic, group) == {0: 1}
