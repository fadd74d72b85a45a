"""Outputs that Kafka refuses: kept, told, tried again, and taken when the cause is gone."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from tests.broker.rigs import KafkaRig, unique
from tests.broker.test_source_and_sink import outputs_of, some
from tests.builders import a_model, an_event
from tests.components import within
from worker.hold import Hold


@pytest.fixture
def rig(kafka):
    with ExitStack() as stack:
        yield KafkaRig(kafka, stack)


def test_a_topic_that_is_not_there_is_waited_for(rig: KafkaRig, kafka):
    scores, letters = unique("absent"), rig.topic()
    sink = rig.sink(scores, letters)
    sink.write(outputs_of(a_model(), some([an_event(1, 2, 3), b"rubbish"])))
    assert within(lambda: sink.settle(0.1) or Hold.OUTPUT in rig.holds)
    assert f"topic {scores} is refused" in (rig.health.held or "")
    kafka.create_topics({scores: 1})
    assert within(lambda: sink.settle(0.1))
    assert rig.health.held is None
    assert len(rig.read_all(scores, 1)) == len(rig.read_all(letters, 1)) == 1


def test_a_limit_that_is_raised_lets_the_output_through_as_it_was_made_small(rig: KafkaRig, kafka):
    scores = rig.topic(bytes_max=100)
    sink = rig.sink(scores, rig.topic())
    sink.write(outputs_of(a_model(), some([an_event(1, 2, 3)])))
    assert within(lambda: sink.settle(0.1) or Hold.OUTPUT in rig.holds)
    entry = ConfigEntry("max.message.bytes", "100000", incremental_operation=AlterConfigOpType.SET)
    topic = ConfigResource(ResourceType.TOPIC, scores, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    for altered in admin.incremental_alter_configs([topic]).values():
        altered.result(15)
    assert within(lambda: sink.settle(0.1))
    assert len(rig.read_all(scores, 1)) == 1
