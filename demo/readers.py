"""Reads the scores and the dead letters back, as any consumer of those topics would."""

from __future__ import annotations

import time

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from demo.books import Books
from demo.player import QUIET
from schemas.dead_letter import DeadLetter
from schemas.score import decode_score

MESSAGES_MAX = 10_000


class Reader:
    """Enters every record of both topics into the books. No group: it reads all partitions."""

    def __init__(self, servers: str, output_topic: str, dead_letter_topic: str) -> None:
        self._output_topic = output_topic
        self._consumer = Consumer(
            {
                "bootstrap.servers": servers,
                "group.id": "odradek-demo-reader",  # Asked for by the client; never used.
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 20,
                "fetch.queue.backoff.ms": 10,
                "log_level": QUIET,
            }
        )
        topics = self._consumer.list_topics(timeout=10).topics
        self._consumer.assign(
            [
                TopicPartition(topic, partition, OFFSET_BEGINNING)
                for topic in (output_topic, dead_letter_topic)
                for partition in topics[topic].partitions
            ]
        )

    def read(self, books: Books, wait_s: float) -> int:
        """Enter what has come, waiting at most `wait_s`; return how many records that was."""
        first = self._consumer.poll(wait_s)
        if first is None:
            return 0
        messages = [first, *self._consumer.consume(MESSAGES_MAX, 0)]
        now_ms = time.time() * 1000
        for message in messages:
            value, headers = message.value(), message.headers()
            if message.error() is not None:
                continue
            if message.topic() == self._output_topic and value is not None:
                books.score(decode_score(value), now_ms)
            elif headers is not None:
                books.dead_letter(DeadLetter.from_headers(headers))  # type: ignore[arg-type]  # Read as bytes.
        return len(messages)

    def close(self) -> None:
        self._consumer.close()
