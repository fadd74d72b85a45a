"""A contender: FastStream on confluent-kafka, a batch subscriber and a batch publisher.

AckPolicy.ACK, so that a batch's offsets are committed once its outputs are acknowledged, instead
of on a timer beforehand. A KafkaPublishMessage keeps the key of each message. Values stay bytes by
a decoder of one's own, since `records` reads them faster than one message at a time.
"""

from __future__ import annotations

import asyncio
from typing import Any

from faststream import AckPolicy, FastStream
from faststream.confluent import KafkaBroker, KafkaMessage, KafkaPublishMessage

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

broker = KafkaBroker(servers())
app = FastStream(broker)
scorer = Scorer(INPUT_TOPIC)


async def as_bytes(message: KafkaMessage) -> Any:  # noqa: ANN401  # What handlers are given.
    return message.body


@broker.subscriber(  # type: ignore[untyped-decorator]
    INPUT_TOPIC,
    group_id=group(),
    auto_offset_reset="earliest",
    batch=True,
    max_records=BATCH_MAX,
    polling_interval=batch_wait_s(),
    ack_policy=AckPolicy.ACK,
    decoder=as_bytes,
    on_assign=joined,
)
async def score(values: list[bytes], message: KafkaMessage) -> None:
    read = message.raw_message
    records = scorer.records(values, ((one.partition(), one.offset()) for one in read))
    outputs = [
        KafkaPublishMessage(record, key=one.key())
        for one, record in zip(read, records, strict=True)
    ]
    await broker.publish_batch(*outputs, topic=OUTPUT_TOPIC)


if __name__ == "__main__":
    asyncio.run(app.run())
