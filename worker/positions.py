"""Asks the broker where partitions begin, and whether the topic is still the same one.

A partition that is assigned is not fetched until its start is known: the group's committed offset,
what the partition holds, and which topic it belongs to. Nothing waits for that longer than a
moment: a broker that is away, and offsets that an open transaction holds back, are asked for again
and again, while the other partitions are read. The rules themselves are in `worker.starts`.

The consumer is asked for the group's offsets, and for the rest an admin client that is new each
time: with one that outlives a broker (librdkafka 2.16), the offsets of a group never came again
after that broker was killed and restarted, and the client once aborted the process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import replace
from enum import Enum, auto
from typing import Any, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient

from schemas.errors import OutsideError
from worker.kafka_client import PASSING, outside_error
from worker.ranges import Ranges
from worker.starts import Note, OutOfRange, Place, Range, Start, StartRules, start_of

# How long one question may take: at first, and after it was in vain; and the pause after that.
ASK_S, ASK_MAX_S, PAUSE_S = 0.25, 2.0, 0.5
LOOK_S = 5.0  # At the topic's id.
SAME_TOPIC_S, AGAIN_S = 5.0, 0.2  # A look costs 1.4 ms of CPU.
GONE_AFTER_S = 2.0  # A broker that has just started may not know all topics yet.
# An end that lies before our place must be seen so often: a new leader may be behind for a moment.
SUSPICIONS = 3


class Topic(Enum):
    """What a look at the topic has shown."""

    SAME = auto()  # It is the one that it was.
    ANOTHER = auto()  # It was deleted and made again since the last look.
    GONE = auto()  # It is not there, and has not been for a while.


class _Look(NamedTuple):
    """A look at the topic that is under way, and the client that must live for so long."""

    admin: AdminClient
    described: Future[Any]
    began: float


class Positions:
    """The starts of one topic's partitions for one group."""

    def __init__(
        self, make_admin: Callable[[], AdminClient], topic: str, group: str, rules: StartRules
    ) -> None:
        self.topic_id: str | None = None
        self._former_id: str | None = None  # Of the topic of this name that we knew before.
        self._make_admin = make_admin
        self._topic = topic
        self._group = group
        self._rules = rules
        self._partitions: list[int] = []  # Of the topic.
        self._wanted: list[int] = []
        self._ranges: Ranges | None = None
        self._old_group: bool | None = None  # Whether it has any commit; asked once a round.
        self._look: _Look | None = None
        self._look_at = 0.0
        self._seen_at = 0.0  # When the look began that has shown what we know.
        self._doubts: dict[int, float] = {}  # Starts that need a look which began after this.
        self._unseen_since: float | None = None
        self._ask_at = 0.0
        self._ask_s = ASK_S
        self._suspicions: dict[int, int] = {}

    def ask(self, partitions: Iterable[int]) -> None:
        """Ask where these begin."""
        self._wanted += [p for p in partitions if p not in self._wanted]
        self._ask_at = 0.0

    def forget(self, partitions: Iterable[int]) -> None:
        """No longer ask for these."""
        gone = set(partitions)
        self._wanted = [p for p in self._wanted if p not in gone]
        for partition in gone:
            self._suspicions.pop(partition, None)
            self._doubts.pop(partition, None)

    @property
    def waiting(self) -> bool:
        """Whether starts are asked for and not known yet."""
        return bool(self._wanted)

    def note(self) -> str:
        """Return what each commit carries."""
        return Note(self.topic_id, self._rules.mark).text()

    def look_soon(self) -> None:
        """Look at the topic at once: something was said of it."""
        self._look_at = 0.0

    def look(self) -> Topic | None:
        """Look at the topic now and then, without waiting; None as long as there is no news."""
        now = time.monotonic()
        if self._look is None:
            if now >= self._look_at:
                admin = self._make_admin()
                topics = TopicCollection([self._topic])
                asked = admin.describe_topics(topics, request_timeout=LOOK_S)
                self._look = _Look(admin, asked[self._topic], now)
            return None
        if not self._look.described.done():
            return None
        (_, described, began), self._look = self._look, None
        self._look_at = now + AGAIN_S
        try:
            topic = described.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                return None
            self._unseen_since = self._unseen_since or now
            return Topic.GONE if now - self._unseen_since > GONE_AFTER_S else None
        self._unseen_since = None
        self._seen_at, self._look_at = began, now + SAME_TOPIC_S
        before, self.topic_id = self.topic_id, str(topic.topic_id)
        self._partitions = [partition.id for partition in topic.partitions]
        if before in (None, self.topic_id):
            return Topic.SAME
        self._former_id = before
        return Topic.ANOTHER

    def answers(self, consumer: Consumer, positions: Mapping[int, int]) -> dict[int, Start]:
        """Return the starts that have become known; one in `positions` goes on from there.

        Raises:
            OutsideError: they cannot be had, or the rules refuse them.
        """
        if not self._wanted or self.topic_id is None:
            return {}
        if self._ranges is None:
            if time.monotonic() >= self._ask_at:
                admin, time_ms = self._make_admin(), self._rules.from_time_ms
                self._ranges = Ranges(admin, self._topic, self._wanted, time_ms)
            return {}
        if not self._ranges.are_told():
            return {}
        ranges, self._ranges = self._ranges, None
        self._ask_at = time.monotonic() + AGAIN_S
        self._old_group = None
        try:
            return self._starts(consumer, ranges.held(self.topic_id), positions)
        except KafkaException as error:
            if error.args[0].code() not in PASSING:
                raise outside_error(
                    f"the offsets of group {self._group} in {self._topic} cannot be read", error
                ) from None
            self._ask_s = min(ASK_MAX_S, 2 * self._ask_s)
            self._ask_at = time.monotonic() + PAUSE_S
            self._wanted.append(self._wanted.pop(0))  # Another one first, next time.
            return {}

    def _starts(
        self, consumer: Consumer, held: Mapping[int, Range], positions: Mapping[int, int]
    ) -> dict[int, Start]:
        """Return what follows from what is known. Raises KafkaException."""
        asked = [partition for partition in self._wanted if partition in held]
        if self._ask_s > ASK_S:
            # One that a transaction holds back would hold back all: after a failure, one by one.
            asked = asked[:1]
        here = Note(self.topic_id, self._rules.mark)
        reached: dict[int, Place | None] = {
            p: Place(positions[p], here) for p in asked if p in positions
        }
        reached |= self._committed(consumer, [p for p in asked if p not in positions])
        starts: dict[int, Start] = {}
        for partition in asked:
            start = self._start(consumer, partition, reached[partition], held[partition])
            if start is not None:
                starts[partition] = start
        self._ask_s = ASK_S
        self._wanted = [partition for partition in self._wanted if partition not in starts]
        return starts

    def _start(
        self, consumer: Consumer, partition: int, reached: Place | None, held: Range
    ) -> Start | None:
        """Return where a partition begins; None if that must be asked again."""
        rules = self._rules
        if reached is None and self._former_id is not None:
            # Kafka forgets a group's offsets with the topic that they are about.
            reached = Place(0, Note(self._former_id, rules.mark))
        if reached is None and rules.new_group == "latest" and self._is_old_group(consumer):
            # This partition is new, the group is not: what it holds was written for us.
            rules = replace(rules, new_group="earliest")
        try:
            start = start_of(partition, reached, held, rules)
        except OutOfRange as refusal:
            raise OutsideError(f"{refusal}; not starting") from None
        if reached is not None and reached.offset > held.high:
            self._suspicions[partition] = self._suspicions.get(partition, 0) + 1
            if self._suspicions[partition] < SUSPICIONS:
                return None
        if (reached is None or start.gap) and not self._looked_since_in_doubt(partition):
            return None
        self._suspicions.pop(partition, None)
        self._doubts.pop(partition, None)
        return start

    def _looked_since_in_doubt(self, partition: int) -> bool:
        """Return whether this topic is still the one that we know; if not sure, look at once.

        Without a commit, or behind a gap, it may just have been made again: its records would be
        read under the old one's id, and read once more when that is found out.
        """
        if self._seen_at >= self._doubts.setdefault(partition, time.monotonic()):
            return True
        self.look_soon()
        return False

    def _is_old_group(self, consumer: Consumer) -> bool:
        if self._old_group is None:
            self._old_group = any(self._committed(consumer, self._partitions).values())
        return self._old_group

    def _committed(
        self, consumer: Consumer, partitions: Collection[int]
    ) -> Mapping[int, Place | None]:
        """Return the group's places; None where it has none. Raises KafkaException."""
        if not partitions:
            return {}
        places = [TopicPartition(self._topic, partition) for partition in partitions]
        committed = consumer.committed(places, timeout=self._ask_s)
        for place in committed:
            if place.error is not None:
                raise KafkaException(place.error)
        return {
            place.partition: Place(place.offset, Note.read(place.metadata))
            if place.offset >= 0
            else None
            for place in committed
        }
