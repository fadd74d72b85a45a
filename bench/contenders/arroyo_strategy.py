"""A contender: sentry-arroyo, the steps of its own example of work in batches.

BatchStep, RunTask, UnbatchStep, Produce, CommitOffsets, with a commit once a second as its
documentation advises.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping

from arroyo import Topic
from arroyo.backends.kafka import KafkaConsumer, KafkaPayload, KafkaProducer
from arroyo.backends.kafka.configuration import (
    build_kafka_consumer_configuration,
    build_kafka_producer_configuration,
)
from arroyo.commit import ONCE_PER_SECOND
from arroyo.processing import StreamProcessor
from arroyo.processing.strategies import (
    BatchStep,
    CommitOffsets,
    Produce,
    RunTask,
    UnbatchStep,
)
from arroyo.processing.strategies.abstract import ProcessingStrategy, ProcessingStrategyFactory
from arroyo.processing.strategies.batching import ValuesBatch
from arroyo.types import Commit, Message, Partition, Value

from bench.contenders.records import (
    BATCH_MAX,
    Scorer,
    batch_wait_s,
    group,
    joined,
    servers,
    topics,
)

INPUT_TOPIC, OUTPUT_TOPIC = topics()
# librdkafka's own. With arroyo's 10,000 the fetcher, which backs off for a second whenever its
# queue is full, held it to 9,600 events/s at a third of a core.
QUEUED_MIN_MESSAGES = 100_000


class ScoreFactory(ProcessingStrategyFactory):  # type: ignore[misc]
    """Makes the chain of steps whenever partitions are assigned."""

    def __init__(self, producer: KafkaProducer) -> None:
        self._producer = producer
        self._scorer = Scorer(INPUT_TOPIC)

    def create_with_partitions(
        self, commit: Commit, _: Mapping[Partition, int]
    ) -> ProcessingStrategy:
        joined()
        produce = Produce(self._producer, Topic(OUTPUT_TOPIC), CommitOffsets(commit))
        score = RunTask(self._score, UnbatchStep(produce))
        return BatchStep(BATCH_MAX, batch_wait_s(), score)

    def _score(self, message: Message) -> ValuesBatch:
        batch = message.payload
        values = self._scorer.records(
            (one.payload.value for one in batch),
            ((one.partition.index, one.offset) for one in batch),
        )
        return [
            Value(KafkaPayload(one.payload.key, value, []), one.committable, one.timestamp)
            for one, value in zip(batch, values, strict=True)
        ]


def main() -> None:
    brokers = [servers()]
    producer = KafkaProducer(build_kafka_producer_configuration({}, brokers))
    consumer = KafkaConsumer(
        build_kafka_consumer_configuration(
            {},
            bootstrap_servers=brokers,
            group_id=group(),
            auto_offset_reset="earliest",
            queued_min_messages=QUEUED_MIN_MESSAGES,
        )
    )
    processor = StreamProcessor(
        consumer, Topic(INPUT_TOPIC), ScoreFactory(producer), ONCE_PER_SECOND
    )
    signal.signal(signal.SIGTERM, lambda *_: processor.signal_shutdown())
    processor.run()
    producer.close().result()


if __name__ == "__main__":
    main()
