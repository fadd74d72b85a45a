"""Reads turns from Kafka, and commits them.

The rules of ownership:

- Every assignment of a partition gets a number. The broker checks a committer's membership, not
  its ownership: in a cooperative group it accepts a commit for a partition that has moved to
  another member, and wrecks that member's place. So nothing is committed, and no record is handed
  out, under a number that is no longer the partition's.
- Revoked: the turn in flight is settled and committed first, within a bound; then the number goes.
- Lost: the number goes at once, and nothing is committed.
- A callback can run inside a read that already holds records of the partition that it takes
  away; those records are dropped before the read returns.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import cast

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from schemas.errors import OutsideError
from worker.kafka_client import (
    HEALS,
    BrokerWatch,
    KafkaRecord,
    Properties,
    make_client,
    outside_error,
    read_statistics,
)
from worker.metrics import Metrics
from worker.turn import Records, Turn

log = logging.getLogger(__name__)

# The share of max.poll.interval.ms that settling may take before partitions are given up.
SETTLE_SHARE = 0.2
POSITIONS_TIMEOUT_S = 10.0


class KafkaSource:
    """The records of one topic, as a member of one consumer group."""

    def __init__(
        self,
        properties: Properties,
        topic: str,
        batch_max: int,
        watch: BrokerWatch,
        metrics: Metrics,
        on_joined: Callable[[], None],
    ) -> None:
        self._topic = topic
        self._batch_max = batch_max
        self._watch = watch
        self._metrics = metrics
        self._on_joined = on_joined
        self._settle_limit_s = SETTLE_SHARE * int(properties["max.poll.interval.ms"]) / 1000
        self._settle: Callable[[float], None] = lambda _: None
        self._numbers: dict[int, int] = {}  # Partition -> the number of its assignment.
        self._next_number = 1
        self._starts: dict[int, int] = {}  # Partition -> where its assignment began.
        self._positions: dict[int, int] = {}  # Partition -> the offset after the last one read.
        self._ends: dict[int, int] = {}  # Partition -> its end, by the latest statistics.
        self._commits: dict[int, int] = {}  # Partition -> the last offset asked to be committed.
        self._held: list[KafkaRecord] = []  # Read while only keeping alive.
        self._given_up: set[int] = set()  # Partitions that went during the read in hand.
        self._paused = False
        self._revoking = False
        self._closing = False
        self._consumer = make_client(
            Consumer,
            {
                **properties,
                "error_cb": watch.on_error,
                "stats_cb": self._on_statistics,
                "on_commit": self._on_commit,
            },
        )

    def start(self, settle: Callable[[float], None]) -> None:
        self._settle = settle
        self._consumer.subscribe(
            [self._topic],
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_lost,
        )

    def read(self, wait_s: float) -> Turn | None:
        self._watch.raise_if_refused()
        self._resume()
        self._given_up.clear()
        records, self._held = self._held, []
        # `consume` would wait for a full batch; `poll` waits for the first message only.
        if (first := self._consumer.poll(0 if records else wait_s)) is not None:
            records += self._records_of([first])
            if self._batch_max > 1:
                records += self._records_of(self._consumer.consume(self._batch_max - 1, 0))
        if self._given_up:
            records = self._without_given_up(records)
        return self._turn(records) if records else None

    def still_owned(self, turn: Turn) -> Turn:
        return turn.restricted_to(self._numbers)

    def keep_alive(self) -> None:
        self._watch.raise_if_refused()
        if not self._paused:
            self._paused = True
            self._consumer.pause(self._owned())
        if (message := self._consumer.poll(0)) is not None:
            self._held += self._records_of([message])

    def commit(self, turn: Turn) -> None:
        offsets = turn.restricted_to(self._numbers).offsets
        if not offsets:
            return
        self._commits.update(offsets)
        # In a callback the commit must have ended before the partitions go.
        self._commit(offsets, wait=self._revoking)

    def close(self) -> None:
        self._closing = True
        owned = {p: offset for p, offset in self._commits.items() if p in self._numbers}
        if owned:
            self._commit(owned, wait=True)
        self._consumer.close()

    def lags(self) -> Mapping[int, int]:
        """Return how many records each of our partitions is behind.

        Any thread may ask: the client is not called, since it serialises its callers and would
        let this one wait for as long as the topic is quiet.
        """
        return {
            partition: max(0, self._ends[partition] - position)
            for partition, position in self._positions.copy().items()
            if partition in self._ends
        }

    def _turn(self, read: list[KafkaRecord]) -> Turn:
        partitions = [record.partition() for record in read]
        offsets = [record.offset() for record in read]
        records = Records(
            self._topic,
            partitions,
            offsets,
            [record.timestamp()[1] for record in read],
            [record.key() for record in read],
            [record.value() for record in read],
            [record.headers() for record in read],
        )
        # The last offset of each partition, plus one: gaps from compaction are not loss.
        ends = {p: offset + 1 for p, offset in zip(partitions, offsets, strict=True)}
        self._positions.update(ends)
        return Turn(records, ends, {p: self._numbers[p] for p in ends})

    def _records_of(self, messages: list[Message]) -> list[KafkaRecord]:
        """Return the records among what the client returned; errors are dealt with here.

        Raises:
            OutsideError: reading cannot go on.
        """
        if all(message.error() is None for message in messages):
            return cast("list[KafkaRecord]", messages)
        for message in messages:
            if (error := message.error()) is not None:
                self._deal_with(error, message.partition())
        return cast("list[KafkaRecord]", [m for m in messages if m.error() is None])

    def _deal_with(self, error: KafkaError, partition: int | None) -> None:
        if error.code() == KafkaError._MAX_POLL_EXCEEDED:
            log.error("%s. Rejoining; the records in hand are dropped and read again.", error.str())
        elif error.code() == KafkaError._AUTO_OFFSET_RESET:
            raise OutsideError(
                f"partition {partition} of {self._topic}: its committed offset is no longer there "
                f"({error.str()}). Records may be lost to retention, or the topic was made again. "
                "Stopping rather than skip them silently; move the group's offsets to where it "
                "should go on"
            )
        elif error.code() not in HEALS or error.fatal():
            raise outside_error(f"reading {self._topic} failed", error)
        else:
            log.debug("librdkafka: %s", error.str())

    def _without_given_up(self, records: list[KafkaRecord]) -> list[KafkaRecord]:
        """Drop records of partitions that went, or went and came back, while we read them."""
        for partition in self._given_up & self._numbers.keys():
            # It came back within one read: which records are from before cannot be told, so all
            # are dropped and read again from where the new assignment began.
            self._consumer.seek(TopicPartition(self._topic, partition, self._starts[partition]))
        return [record for record in records if record.partition() not in self._given_up]

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            self._consumer.resume(self._owned())

    def _owned(self) -> list[TopicPartition]:
        return [TopicPartition(self._topic, partition) for partition in self._numbers]

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        if self._closing:  # One who leaves gets no answer about positions, and needs none.
            return
        self._metrics.rebalanced("assigned")
        try:
            committed = consumer.committed(partitions, timeout=POSITIONS_TIMEOUT_S)
        except KafkaException as error:
            raise outside_error("the group's committed offsets cannot be read", error) from None
        fresh = [place.partition for place in committed if place.offset < 0]
        if fresh:
            log.info("No committed offset for partitions %s: starting at the earliest.", fresh)
        for place in committed:
            place.offset = OFFSET_BEGINNING if place.offset < 0 else place.offset
            self._numbers[place.partition] = self._next_number
            self._starts[place.partition] = place.offset
            self._positions[place.partition] = max(place.offset, 0)
            self._next_number += 1
        consumer.incremental_assign(committed)
        # librdkafka remembers a pause across assignments: a partition that went while we kept
        # alive comes back paused, and would stay so for ever.
        (consumer.pause if self._paused else consumer.resume)(committed)
        log.info(
            "Assigned partitions %s; now reading %s.", _list(partitions), sorted(self._numbers)
        )
        self._on_joined()

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._metrics.rebalanced("revoked")
        if not self._closing:
            self._revoking = True
            try:
                self._settle(self._settle_limit_s)
            finally:
                self._revoking = False
        self._give_up(consumer, partitions)
        log.info("Revoked partitions %s; now reading %s.", _list(partitions), sorted(self._numbers))

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._metrics.rebalanced("lost")
        self._give_up(consumer, partitions)
        log.warning(
            "Lost partitions %s: another worker may have them by now. Nothing of them is "
            "committed; what was read and not committed is read again.",
            _list(partitions),
        )

    def _give_up(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        gone = set(_list(partitions))
        for partition in gone:
            for places in (self._numbers, self._starts, self._positions, self._commits):
                places.pop(partition, None)
        self._given_up |= gone
        self._held = [record for record in self._held if record.partition() not in gone]
        consumer.incremental_unassign(partitions)

    def _commit(self, offsets: Mapping[int, int], *, wait: bool) -> None:
        places = [TopicPartition(self._topic, p, offset) for p, offset in offsets.items()]
        try:
            if wait:
                self._consumer.commit(offsets=places, asynchronous=False)
            else:
                self._consumer.commit(offsets=places, asynchronous=True)
        except KafkaException as error:
            # Not fatal: whoever has the partitions now reads those records again.
            self._on_commit(error.args[0], places)

    def _on_statistics(self, text: str) -> None:
        statistics = read_statistics(text)
        self._watch.on_statistics(statistics)
        self._ends = statistics.ends(self._topic)

    def _on_commit(self, error: KafkaError | None, _: list[TopicPartition]) -> None:
        self._metrics.committed("failed" if error else "ok")
        if error:
            log.warning("A commit failed: %s. Its records may be read again.", error.str())


def _list(partitions: list[TopicPartition]) -> list[int]:
    return sorted(place.partition for place in partitions)
