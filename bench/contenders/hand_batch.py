"""A contender: a batch loop as a careful hand writes it on confluent-kafka.

Poll for the first record, take what else is there already, score it all as one batch
(`bench.contenders.records`), produce_batch, flush, then commit. librdkafka as it comes.
`consume(500, 0.1)` would be a line shorter and waits all of its 0.1 s wherever fewer than 500
records come: at a steady 2,000 events/s that is most of a hundred milliseconds for each.
"""

from __future__ import annotations

import signal
from typing import cast

from confluent_kafka import Consumer, KafkaException, Producer

from bench.contenders.records import (
    BATCH_MAX,
    Scorer,
    group,
    joined,
    keys_and_values,
    servers,
    topics,
)


def main() -> None:
    running = True

    def stop(*_: object) -> None:
        nonlocal running
        running = False

    signal.signal(signal.SIGTERM, stop)
    input_topic, output_topic = topics()
    scorer = Scorer(input_topic)
    producer = Producer({"bootstrap.servers": servers()})
    consumer = Consumer(
        {
            "bootstrap.servers": servers(),
            "group.id": group(),
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe([input_topic], on_assign=joined)
    while running:
        first = consumer.poll(0.2)
        if first is None:
            continue
        messages = [first, *consumer.consume(BATCH_MAX - 1, 0)]
        for message in messages:
            if message.error():
                raise KafkaException(message.error())
        values = scorer.records(
            (cast("bytes", m.value()) for m in messages),
            ((cast("int", m.partition()), cast("int", m.offset())) for m in messages),
        )
        keys = [cast("bytes", m.key()) for m in messages]
        producer.produce_batch(output_topic, keys_and_values(keys, values))
        producer.flush()
        consumer.commit()
    consumer.close()


if __name__ == "__main__":
    main()
