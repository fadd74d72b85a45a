"""A contender: Quix Streams, with a sink of one's own for work in batches.

Its documentation gives batches to a `BatchingSink`: records are gathered until a checkpoint,
`write` gets them all, and their offsets are committed once it returns. Count windows, the other
way to a batch, are by key and would never fill here. Values stay bytes, since `records` reads
them faster than a deserialiser of single messages.
"""

from __future__ import annotations

from confluent_kafka import KafkaError, Message, Producer
from quixstreams import Application
from quixstreams.sinks import BatchingSink, SinkBatch

from bench.contenders.records import (
    BATCH_MAX,
    Scorer,
    batch_wait_s,
    group,
    joined,
    keys_and_values,
    servers,
    topics,
)

INPUT_TOPIC, OUTPUT_TOPIC = topics()


class ScoreSink(BatchingSink):  # type: ignore[misc]
    """Scores each batch and writes the records, acknowledged before the checkpoint goes on."""

    def __init__(self) -> None:
        super().__init__()
        self._scorer = Scorer(INPUT_TOPIC)
        self._producer = Producer({"bootstrap.servers": servers()})
        self._refusals: list[KafkaError] = []

    def setup(self) -> None:
        joined()  # A little early: the group is joined next.

    def write(self, batch: SinkBatch) -> None:
        items = list(batch)
        values = self._scorer.records(
            (item.value for item in items), ((batch.partition, item.offset) for item in items)
        )
        messages = keys_and_values([item.key for item in items], values)
        self._producer.produce_batch(OUTPUT_TOPIC, messages, on_delivery=self._delivered)
        if self._producer.flush() or self._refusals:
            raise RuntimeError(f"not delivered: {self._refusals[:1]}")

    def _delivered(self, error: KafkaError | None, _: Message) -> None:
        if error is not None:
            self._refusals.append(error)


def main() -> None:
    app = Application(
        broker_address=servers(),
        consumer_group=group(),
        auto_offset_reset="earliest",
        commit_every=BATCH_MAX,
        commit_interval=batch_wait_s(),
        consumer_poll_timeout=batch_wait_s(),
    )
    topic = app.topic(INPUT_TOPIC, key_deserializer="bytes", value_deserializer="bytes")
    app.dataframe(topic).sink(ScoreSink())
    app.run()


if __name__ == "__main__":
    main()
