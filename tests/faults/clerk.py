"""The clerk: reads both output topics as any consumer would, and enters all into the ledger.

One thread of its own; others meet the ledger through `books()`, which keeps the clerk out.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Message, TopicPartition

from schemas.dead_letter import DeadLetter
from schemas.score import decode_score
from tests.faults.entries import Output, Position
from tests.faults.ledger import Ledger
from tests.faults.load import Sender, number_in, number_of

WAIT_S = 0.02
MESSAGES_MAX = 5_000


class Clerk(threading.Thread):
    """Keeps a ledger up to date until `stop`."""

    def __init__(
        self, servers: str, topics: tuple[str, str], sender: Sender, ledger: Ledger
    ) -> None:
        super().__init__(name="clerk", daemon=True)
        self.failed: BaseException | None = None
        self._scores = topics[0]
        self._sender = sender
        self._ledger = ledger
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        isolation = "read_committed" if ledger.exactly_once else "read_uncommitted"
        self._consumer = a_reader(servers, isolation)
        self._consumer.assign(all_partitions(self._consumer, *topics))

    def run(self) -> None:
        try:
            while not self._stopping.is_set():
                first = self._consumer.poll(WAIT_S)
                more = self._consumer.consume(MESSAGES_MAX, 0) if first is not None else []
                with self._lock:
                    self._enter([first, *more] if first is not None else [])
        except BaseException as failure:
            self.failed = failure
            raise
        finally:
            self._consumer.close()

    def stop(self) -> None:
        self._stopping.set()
        self.join()

    @contextmanager
    def books(self) -> Iterator[Ledger]:
        """The ledger, while nobody else writes in it.

        Raises:
            RuntimeError: the clerk has failed, and the books are no longer kept.
        """
        if self.failed is not None:
            raise RuntimeError("the clerk has stopped") from self.failed
        with self._lock:
            yield self._ledger

    def _enter(self, messages: list[Message]) -> None:
        while self._sender.acknowledged:
            self._ledger.enter_sent(*self._sender.acknowledged.popleft())
        for message in messages:
            if message.error() is None:
                self._ledger.enter_output(self._output(message))

    def _output(self, message: Message) -> Output:
        value, headers = message.value(), message.headers() or []
        written_ms = message.timestamp()[1]
        if message.topic() == self._scores:
            assert value is not None
            score = decode_score(value)
            return Output(
                number_in(score.event_id.encode()),
                score.source.partition,
                score.source.offset,
                score.verdict,
                score.score,
                score.model.digest,
                False,
                written_ms,
            )
        letter = DeadLetter.from_headers(headers)  # type: ignore[arg-type]  # Read as bytes.
        return Output(
            number_of(headers, value),  # type: ignore[arg-type]  # Read as bytes.
            letter.source_partition,
            letter.source_offset,
            letter.reason,
            None,
            letter.model_digest,
            True,
            written_ms,
        )


def a_reader(servers: str, isolation: str = "read_uncommitted") -> Consumer:
    """A consumer outside of any group's affairs."""
    return Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": "ledger",  # Asked for by the client; never used.
            "enable.auto.commit": False,
            "enable.partition.eof": False,
            "isolation.level": isolation,
            "fetch.wait.max.ms": 20,
            "fetch.queue.backoff.ms": 10,
            "reconnect.backoff.max.ms": 250,
            "log_level": 2,
        }
    )


def all_partitions(consumer: Consumer, *topics: str) -> list[TopicPartition]:
    """Every partition of these topics, from its beginning."""
    known = consumer.list_topics(timeout=15).topics
    return [
        TopicPartition(topic, partition, OFFSET_BEGINNING)
        for topic in topics
        for partition in known[topic].partitions
    ]


def read_back(servers: str, topic: str, limit_s: float = 60.0) -> Iterator[tuple[int, Position]]:
    """Every event that a topic holds: its number and where it is. The truth of what was sent.

    Raises:
        TimeoutError: not all of it could be read in time.
    """
    reader = a_reader(servers)
    try:
        places = all_partitions(reader, topic)
        reader.assign(places)
        ends = {place.partition: reader.get_watermark_offsets(place, 15) for place in places}
        left = {p: high for p, (low, high) in ends.items() if high > low}
        deadline = time.monotonic() + limit_s
        while left:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{topic} was not read to its ends {left} in {limit_s} s")
            for message in reader.consume(MESSAGES_MAX, 0.1):
                partition, offset = message.partition(), message.offset()
                if message.error() is not None or partition is None or offset is None:
                    continue
                headers = message.headers() or []
                number = number_of(headers, message.value())  # type: ignore[arg-type]  # Bytes.
                assert number is not None, f"{topic} {partition}@{offset} has no number"
                yield number, Position(partition, offset)
                if offset + 1 >= left.get(partition, 0):
                    left.pop(partition, None)
    finally:
        reader.close()


def ends_of(servers: str, topic: str) -> dict[int, int]:
    """Where each partition of a topic ends.

    Raises:
        KafkaException: no broker told.
    """
    reader = a_reader(servers)
    try:
        ends: dict[int, int] = {}
        for place in all_partitions(reader, topic):
            watermarks = reader.get_watermark_offsets(place, 15)
            if watermarks is None:
                raise KafkaException(f"no end of {topic} {place.partition}")
            ends[place.partition] = watermarks[1]
        return ends
    finally:
        reader.close()
