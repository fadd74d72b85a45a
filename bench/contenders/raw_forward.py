"""A reference, not a contender: every value is written back as it was read.

The worker without its decoding, scoring and encoding: the same two clients and properties, the
same turns, acknowledgements awaited and offsets committed one turn behind. What it costs is what
a worker on these clients cannot go below, with one reservation: it writes back the event's bytes,
which are more than a score record's.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import cast

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from worker.kafka_properties import kafka_properties
from worker.kafka_records import KafkaRecord
from worker.settings import WorkerSettings


def main() -> None:
    running = True
    refusals: list[KafkaError] = []

    def stop(*_: object) -> None:
        nonlocal running
        running = False

    def on_delivery(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            refusals.append(error)

    signal.signal(signal.SIGTERM, stop)
    settings = WorkerSettings(_cli_parse_args=[])  # type: ignore[call-arg]
    properties, problems = kafka_properties(os.environ)
    if problems:
        raise SystemExit("\n".join(problems))
    producer = Producer(properties.producer)
    consumer = Consumer(
        {**properties.consumer, "group.id": settings.group_id, "auto.offset.reset": "earliest"}
    )
    consumer.subscribe(
        [settings.input_topic],
        on_assign=lambda *_: print("Assigned partitions.", file=sys.stderr, flush=True),
    )
    in_flight: list[TopicPartition] = []

    def settle() -> None:
        if producer.flush() or refusals:
            raise SystemExit(f"not delivered: {refusals[:1]}")
        if in_flight:
            consumer.commit(offsets=in_flight)
            in_flight.clear()

    while running:
        first = consumer.poll(0 if in_flight else 0.2)
        if first is None:
            settle()
            continue
        messages = [first, *consumer.consume(settings.batch_max - 1, 0)]
        for message in messages:
            if message.error():
                raise KafkaException(message.error())
        records = cast("list[KafkaRecord]", messages)
        ends = {record.partition(): record.offset() + 1 for record in records}
        copies = [{"value": record.value(), "key": record.key()} for record in records]
        settle()
        queued = producer.produce_batch(settings.output_topic, copies, on_delivery=on_delivery)
        if queued != len(copies):
            raise SystemExit(f"{queued} of {len(copies)} queued")
        in_flight += [TopicPartition(settings.input_topic, p, end) for p, end in ends.items()]
    settle()
    consumer.close()


if __name__ == "__main__":
    main()
