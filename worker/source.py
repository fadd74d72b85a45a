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
import time
from collections.abc import Callable, Mapping
from typing import cast

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaException,
    Message,
    TopicPartition,
)

from worker.committer import Committer
from worker.kafka_client import (
    HEALS,
    BrokerWatch,
    KafkaRecord,
    Properties,
    deal_with,
    headers_of,
    make_client,
    outside_error,
    read_statistics,
    timestamp_ms_of,
)
from worker.metrics import Metrics
from worker.turn import Records, Turn

log = logging.getLogger(__name__)

# The share of max.poll.interval.ms that settling may take before partitions are given up.
SETTLE_SHARE = 0.2
POSITIONS_TIMEOUT_S = 2.0
SAY_AFTER_S = 5.0
REVOKE_COMMIT_LIMIT_S = 10.0


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
        self._held: list[KafkaRecord] = []  # Read while only keeping alive.
        self._given_up: set[int] = set()  # Partitions that went during the read in hand.
        self._paused = False
        self._closing = False
        self._started_at: float | None = None  # None once we have waited long enough to say so.
        self._committer = Committer(topic, metrics)
        self._consumer = make_client(
            Consumer,
            {
                **properties,
                "error_cb": watch.on_error,
                "stats_cb": self._on_statistics,
                "on_commit": self._committer.on_commit,
            },
        )

    def start(self, settle: Callable[[float], None]) -> None:
        self._settle = settle
        self._started_at = time.monotonic()
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
        if not records:
            self._committer.ask_again(self._consumer)
            self._say_what_we_wait_for()
            return None
        return self._turn(records)

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
        if offsets:
            self._committer.commit(self._consumer, offsets)

    def close(self, limit_s: float) -> None:
        self._closing = True
        if not self._committer.confirm_while_polling(self._consumer, limit_s):
            log.warning(
                "The last commits were not confirmed within %.0f s: partitions and offsets %s. "
                "If they failed, records before these offsets are read again.",
                limit_s,
                self._committer.owed,
            )
        self._consumer.close()

    def lags(self) -> Mapping[int, int]:
        """Return how many records each of our partitions is behind. Any thread may ask."""
        # The client is not called: it serialises its callers, and a quiet topic starves others.
        ends = self._ends
        return {
            partition: max(0, ends[partition] - position)
            for partition, position in self._positions.copy().items()
            if partition in ends
        }

    def _turn(self, read: list[KafkaRecord]) -> Turn:
        partitions = [record.partition() for record in read]
        offsets = [record.offset() for record in read]
        records = Records(
            self._topic,
            partitions,
            offsets,
            [timestamp_ms_of(record) for record in read],
            [record.key() for record in read],
            [record.value() for record in read],
            [headers_of(record) for record in read],
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
                deal_with(error, self._topic, message.partition())
        return cast("list[KafkaRecord]", [m for m in messages if m.error() is None])

    def _without_given_up(self, records: list[KafkaRecord]) -> list[KafkaRecord]:
        """Drop records of partitions that went, or went and came back, while we read them."""
        for partition in self._given_up & self._numbers.keys():
            # It came back within one read: which records are from before cannot be told, so all
            # are dropped and read again from where the new assignment began.
            self._consumer.seek(TopicPartition(self._topic, partition, self._starts[partition]))
        return [record for record in records if record.partition() not in self._given_up]

    def _say_what_we_wait_for(self) -> None:
        if self._started_at is None or time.monotonic() - self._started_at < SAY_AFTER_S:
            return
        self._started_at = None
        if not self._numbers:
            log.info(
                "No partitions of %s yet. If a worker died lately, its session must expire first "
                "(45 s by default; KAFKA_CONSUMER_SESSION_TIMEOUT_MS), or others have them all.",
                self._topic,
            )

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
        committed = self._committed(partitions)
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

    def _committed(self, partitions: list[TopicPartition]) -> list[TopicPartition]:
        """Return the group's committed offsets; a broker that is away is waited for, a while.

        Raises:
            OutsideError: it did not answer, or refused.
        """
        deadline = time.monotonic() + self._settle_limit_s
        while True:
            try:
                committed = self._consumer.committed(partitions, timeout=POSITIONS_TIMEOUT_S)
                break
            except KafkaException as error:
                if time.monotonic() > deadline or error.args[0].code() not in HEALS:
                    raise outside_error("committed offsets cannot be read", error) from None
        for place in committed:
            if place.error is not None:
                raise outside_error(
                    f"the committed offset of partition {place.partition} cannot be read",
                    place.error,
                )
        return committed

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._metrics.rebalanced("revoked")
        if not self._closing:
            self._settle(self._settle_limit_s)
            # In a callback the commits must have ended before the partitions go.
            self._committer.confirm(consumer, _list(partitions), REVOKE_COMMIT_LIMIT_S)
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
            for places in (self._numbers, self._starts, self._positions):
                places.pop(partition, None)
        self._committer.forget(gone)
        self._given_up |= gone
        self._held = [record for record in self._held if record.partition() not in gone]
        consumer.incremental_unassign(partitions)

    def _on_statistics(self, text: str) -> None:
        statistics = read_statistics(text)
        self._watch.on_statistics(statistics)
        self._ends = statistics.ends(self._topic)


def _list(partitions: list[TopicPartition]) -> list[int]:
    return sorted(place.partition for place in partitions)
