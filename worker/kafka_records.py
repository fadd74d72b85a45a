"""Records as the Kafka client gives them, and as columns of a turn."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Protocol, cast

from confluent_kafka import KafkaError, Message

from schemas.dead_letter import Headers
from worker.logs import RECORDS
from worker.turn import Records

records_log = logging.getLogger(RECORDS)


class KafkaRecord(Protocol):
    """A `Message` that carries a record rather than an error: its parts are all there."""

    def error(self) -> None: ...
    def topic(self) -> str: ...
    def partition(self) -> int: ...
    def offset(self) -> int: ...
    def timestamp(self) -> tuple[int, int]: ...
    def key(self) -> bytes | None: ...
    def value(self) -> bytes | None: ...
    def headers(self) -> Headers | None: ...


def timestamps_ms_of(read: list[KafkaRecord]) -> list[int]:
    """Return the records' times; one that has none (of a very old client) was read now."""
    timestamps_ms = [record.timestamp()[1] for record in read]
    if min(timestamps_ms, default=0) >= 0:
        return timestamps_ms
    now_ms = int(time.time() * 1000)
    return [now_ms if timestamp_ms < 0 else timestamp_ms for timestamp_ms in timestamps_ms]


def headers_of(record: KafkaRecord) -> Headers | None:
    """Return a record's headers; none, where a name is not UTF-8, which the client cannot read."""
    try:
        return record.headers()
    except (SystemError, UnicodeError):
        records_log.warning(
            "A record's headers cannot be read, a name is not UTF-8; they are dropped."
        )
        return None


def columns_of(topic: str, read: list[KafkaRecord]) -> Records:
    """Return records as columns, in the order in which they were read."""
    return Records(
        topic,
        [record.partition() for record in read],
        [record.offset() for record in read],
        timestamps_ms_of(read),
        [record.key() for record in read],
        [record.value() for record in read],
        [headers_of(record) for record in read],
    )


def records_of(
    messages: list[Message], deal_with: Callable[[KafkaError, int | None], None]
) -> list[KafkaRecord]:
    """Return the records among what the client returned; errors are dealt with."""
    if all(message.error() is None for message in messages):
        return cast("list[KafkaRecord]", messages)
    for message in messages:
        if (error := message.error()) is not None:
            deal_with(error, message.partition())
    return cast("list[KafkaRecord]", [m for m in messages if m.error() is None])
