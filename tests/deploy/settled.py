"""Are all events settled? Asked inside the stack, by one of its clients, once its workers are gone.

Prints two numbers: up to where the workers' group has committed, all partitions together, and how
many of these events the two output topics tell of. Workers that ended in order leave the same.
It is given to a container as text, so it imports nothing but what is in the worker's image.
"""

import os
import sys

import msgspec
from confluent_kafka import Consumer, TopicPartition

from schemas.dead_letter import DeadLetter
from schemas.score import Score
from worker.kafka_properties import kafka_properties

EVENTS, OUTPUTS = "events", ("scores", "dead-letters")
GROUP = "odradek-events"
TIMEOUT_S = 10.0


def main() -> int:
    """Print the two numbers, and return 0."""
    given, _ = kafka_properties(os.environ)
    consumer = Consumer({**given.consumer, "group.id": GROUP})
    committed = consumer.committed(_partitions(consumer, EVENTS), timeout=TIMEOUT_S)
    told = {position for topic in OUTPUTS for position in _told(consumer, topic)}
    consumer.close()
    print(sum(max(one.offset, 0) for one in committed), len(told))
    return 0


def _partitions(consumer, topic):
    known = consumer.list_topics(topic, timeout=TIMEOUT_S).topics[topic].partitions
    return [TopicPartition(topic, number, 0) for number in known]


def _told(consumer, topic):
    """Yield partition and offset of the event that each record of an output topic is about."""
    partitions = _partitions(consumer, topic)
    left = sum(consumer.get_watermark_offsets(one, timeout=TIMEOUT_S)[1] for one in partitions)
    consumer.assign(partitions)
    while left:
        records = consumer.consume(min(left, 500), timeout=TIMEOUT_S)
        if not records:
            raise TimeoutError(f"no record of {topic} in {TIMEOUT_S:g} s, and {left:,} are left")
        left -= len(records)
        for record in records:
            if topic == "scores":
                source = msgspec.json.decode(record.value(), type=Score).source
                yield source.partition, source.offset
            else:
                letter = DeadLetter.from_headers(record.headers())
                yield letter.source_partition, letter.source_offset


if __name__ == "__main__":
    sys.exit(main())
