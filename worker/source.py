"""Reads turns from Kafka, and commits them.

The rules of ownership:

- Every assignment of a partition gets a number. The broker checks a committer's membership, not
  its ownership: in a cooperative group it accepts a commit for a partition that has moved to
  another member, and wrecks that member's place. So nothing is committed, and no record is handed
  out, under a number that is no longer the partition's.
- Assigned: the partition is fetched once its start is known, which nothing waits for.
- Revoked: the turn in flight is settled and committed first, within a bound; then the number goes.
- Lost: the number goes at once, and nothing is committed.
- A callback can run inside a read that already holds records of the partition that it takes
  away; those records are dropped before the read returns.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from functools import partial

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from schemas.errors import OutsideError
from worker.assignments import Assignments
from worker.background import Call
from worker.committer import Committer, GroupOffsets
from worker.hold import Holds
from worker.kafka_client import BrokerWatch, Properties, deal_with, make_client
from worker.kafka_properties import is_classic, session_text
from worker.kafka_records import KafkaRecord, columns_of, records_of
from worker.lags import Lags
from worker.membership import Membership
from worker.metrics import Metrics
from worker.placing import Placing
from worker.positions import Positions
from worker.topics import make_admin
from worker.turn import Released, Turn, TurnLimits

# The share of max.poll.interval.ms that settling may take before partitions are given up.
SETTLE_SHARE = 0.2
REVOKE_COMMIT_LIMIT_S = 10.0
# Answers of the broker do not wake the consumer: how soon we look whether they are there.
PLACING_WAIT_S = 0.01


class KafkaSource:
    """The records of one topic, as a member of one consumer group."""

    def __init__(
        self,
        properties: Properties,
        topic: str,
        limits: TurnLimits,
        positions: Positions,
        watch: BrokerWatch,
        metrics: Metrics,
        holds: Holds,
        on_joined: Callable[[], None],
        *,
        jump_gaps: bool = False,
        in_transactions: bool = False,
    ) -> None:
        self._topic, self._group = topic, properties["group.id"]
        self._limits = limits
        self._positions, self._watch, self._metrics = positions, watch, metrics
        self._on_joined = on_joined
        self._membership = Membership(
            properties.get("group.instance.id"),
            session_text(properties),
            classic=is_classic(properties),
        )
        self._settle_limit_s = SETTLE_SHARE * int(properties["max.poll.interval.ms"]) / 1000
        self._settle: Callable[[float], None] = lambda _: None
        self._ours = Assignments()
        admin = partial(make_admin, properties, watch)
        self.lags = Lags(topic, self._ours.positions, watch, metrics.librdkafka, admin)
        self._held: list[KafkaRecord] = []  # Read, and to be returned by the next read.
        self._paused = self._closing = False
        self._committer = Committer(topic, metrics, positions.note, self._membership)
        self._properties: Properties = {
            **properties,
            "error_cb": watch.on_error,
            "stats_cb": self.lags.on_statistics,
            "on_commit": self._committer.on_commit,
        }
        self._consumer = make_client(Consumer, self._properties)
        self._placing = Placing(
            self._consumer,
            topic,
            self._ours,
            positions,
            self._committer,
            metrics,
            holds,
            jump_gaps=jump_gaps,
            in_transactions=in_transactions,
        )

    def start(self, settle: Callable[[float], None]) -> None:
        self._settle = settle
        self._membership.joins()
        self._consumer.subscribe(
            [self._topic],
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_lost,
        )

    def read(self, wait_s: float) -> Turn | None:
        self._raise_if_refused()
        self._resume()
        self._ours.given_up.clear()
        if self._membership.is_forgotten() or not self._placing.place():
            self._begin_anew()
        in_flight = wait_s == 0  # What is in flight must not wait for company as well.
        company_s = 0.0 if in_flight or self._positions.waiting else self._limits.wait_s
        if self._positions.waiting:
            wait_s = min(wait_s, PLACING_WAIT_S)
        records, self._held = self._held, []
        # `consume` waits for a full batch until its time is up; `poll` for the first message only.
        if (first := self._consumer.poll(0 if records else wait_s)) is not None:
            records += self._records_of([first])
        if records and (lacking := self._limits.records - len(records)) > 0:
            records += self._records_of(self._consumer.consume(lacking, company_s))
        if self._ours.given_up or len(self._ours.numbers) < len(self._ours.owned):
            records = self._ours_of(records)
        if in_flight and self._limits.wait_s and len(records) < self._limits.records:
            self._held, records = records, []
        if not records:
            self._committer.ask(self._consumer)
            self._placing.say_what_we_wait_for()
            return None
        return self._turn(records, self._limits.released(len(records), waited=company_s > 0))

    def still_owned(self, turn: Turn) -> Turn:
        return turn.restricted_to(self._ours.numbers)

    def keep_alive(self, wait_s: float) -> None:
        self._raise_if_refused()
        if not self._paused:
            self._paused = True
            self._consumer.pause(self._placed())
        if (message := self._consumer.poll(wait_s)) is not None:
            self._held += self._records_of([message])
        self._committer.ask(self._consumer)

    def commit(self, turn: Turn) -> None:
        offsets = self._ours.finish(turn)
        if offsets:
            self._committer.commit(self._consumer, offsets)

    def transaction_offsets(self, turn: Turn) -> GroupOffsets:
        places = self._committer.places(turn.offsets)
        return GroupOffsets(places, self._consumer.consumer_group_metadata())

    def done(self, turn: Turn) -> None:
        self._ours.finish(turn)
        self._membership.accepted()
        self._metrics.committed("ok")

    def rewind(self) -> None:
        self._held = []
        self._ours.rewind()
        self._seek(self._ours.numbers.keys())

    def refused_as_unknown(self) -> None:
        self._membership.refused_as_unknown()

    def place_anew(self) -> None:
        self._held = []
        self._ours.unplace(self._ours.owned)
        self._positions.ask(self._ours.owned)

    def close(self, limit_s: float) -> None:
        if self._closing:
            return
        self._closing = True
        began = time.monotonic()
        self._committer.confirm_while_polling(self._consumer, limit_s)
        self._membership.say_it_stays(self._ours.owned)
        left_s = max(0.0, limit_s - (time.monotonic() - began))
        self._membership.leave(self._consumer, self._ours.owned, left_s)

    def _begin_anew(self) -> None:
        """Take a new client, for a group that has forgotten the old one or a topic made again.

        Such a topic's leader epochs begin below those of the old one. librdkafka 2.16 takes them
        for outdated: the old client would never read it.
        """
        self._committer.begin_anew()
        self._closing = True  # Nothing of before is settled or committed.
        leave = partial(self._membership.leave, self._consumer, self._ours.owned, 0.0)
        if not Call(leave).wait(self._settle_limit_s):
            raise OutsideError(f"the old client of topic {self._topic} hangs; stopping")
        self._closing = self._paused = False
        self._positions.forget(self._ours.owned)
        self._ours.give_up(set(self._ours.owned))
        self._held = []
        self._consumer = self._placing.consumer = make_client(Consumer, self._properties)
        self.start(self._settle)

    def _turn(self, read: list[KafkaRecord], released: Released) -> Turn:
        records = columns_of(self._topic, read)
        # The last offset of each partition, plus one: gaps from compaction are not loss.
        ends = dict(zip(records.partitions, (o + 1 for o in records.offsets), strict=True))
        return Turn(records, ends, self._ours.read(ends), released)

    def _records_of(self, messages: list[Message]) -> list[KafkaRecord]:
        return records_of(messages, self._deal_with)

    def _deal_with(self, error: KafkaError, partition: int | None) -> None:
        """Raises OutsideError where reading cannot go on."""
        if error.code() == KafkaError._AUTO_OFFSET_RESET and partition is not None:
            self._positions.ask([partition])  # What is next is not there.
        elif error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART and self._ours.owned:
            self._positions.look_soon()  # Is it gone?
        else:
            deal_with(error, f"reading {self._topic} as group {self._group}")

    def _ours_of(self, records: list[KafkaRecord]) -> list[KafkaRecord]:
        """Drop records of partitions that went while we read them, or whose start is not known.

        One that was rewound meanwhile is rewound again: which of its records are from before
        cannot be told.
        """
        self._seek(self._ours.given_up & self._ours.numbers.keys())
        kept = self._ours.numbers.keys() - self._ours.given_up
        return [record for record in records if record.partition() in kept]

    def _raise_if_refused(self) -> None:
        self._watch.raise_if_refused()
        self._committer.raise_if_refused(self._group)

    def _seek(self, partitions: Collection[int]) -> None:
        """Have these partitions read on behind what is done."""
        for partition in [*partitions]:
            try:
                self._consumer.seek(
                    TopicPartition(self._topic, partition, self._ours.done[partition])
                )
            except KafkaException:  # It is on its way out; if it stays, it begins anew.
                self._ours.unplace([partition])
                self._positions.ask([partition])

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            self._consumer.resume(self._placed())

    def _placed(self) -> list[TopicPartition]:
        return [TopicPartition(self._topic, partition) for partition in self._ours.numbers]

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._membership.is_let_in()
        if self._closing:
            return
        self._metrics.rebalanced("assigned")
        # Fetched once its start is known (`worker.placing`): after a seek away from a logical
        # offset librdkafka asks for it again, and its answer skips records.
        consumer.incremental_assign([])
        self._ours.assign(_list(partitions))
        self._positions.ask(_list(partitions))
        self._membership.say_change("assigned", _list(partitions), self._ours.owned)
        self._on_joined()

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._metrics.rebalanced("revoked")
        if not self._closing:
            self._settle(self._settle_limit_s)
        # In a callback the commits must have ended before the partitions go.
        self._committer.confirm(consumer, _list(partitions), REVOKE_COMMIT_LIMIT_S)
        self._give_up(consumer, partitions)
        self._membership.say_change("revoked", _list(partitions), self._ours.owned)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._metrics.rebalanced("lost")
        self._membership.joins()
        self._give_up(consumer, partitions)
        self._membership.say_change("lost", _list(partitions), self._ours.owned)

    def _give_up(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        gone = _list(partitions)
        fetched = [place for place in partitions if place.partition in self._ours.fetched]
        self._ours.give_up(gone)
        self._positions.forget(gone)
        self._committer.forget(gone)
        self._held = [record for record in self._held if record.partition() not in gone]
        consumer.incremental_unassign(fetched)


def _list(partitions: list[TopicPartition]) -> list[int]:
    return sorted(place.partition for place in partitions)
