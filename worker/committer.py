"""Commits offsets, knows which ones the broker has not confirmed, and asks again.

Commits share a connection with the group's own requests, and Kafka answers one request of a
connection at a time: one made while a rebalance is under way waits behind it, and then fails for
its old generation. So only one is on its way at a time, and what is owed meanwhile goes with the
next: with the next turn's, when nothing is read, and before partitions are given up.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from worker.kafka_client import outside_error
from worker.logs import fields
from worker.membership import Membership
from worker.metrics import Metrics

log = logging.getLogger(__name__)

AGAIN_S, CONFIRM_S = 0.05, 1.0
# An answer comes within the client's socket.timeout.ms, which is 60 s; one that does not is lost.
ANSWER_S = 120.0
# Nothing but a person can mend these.
_REFUSED = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED)
# Another member answers for our partitions, and always will.
_FENCED = (KafkaError.FENCED_INSTANCE_ID, KafkaError._FENCED, KafkaError._FATAL)


class GroupOffsets(NamedTuple):
    """What a transaction commits for a group: places, and the membership that may commit them."""

    places: list[TopicPartition]
    membership: object


class Committer:
    """The commits of one topic; `owed` are the offsets not yet confirmed, by partition;
    `refusal` is why none ever will be."""

    def __init__(
        self, topic: str, metrics: Metrics, note: Callable[[], str], membership: Membership
    ) -> None:
        self.owed: dict[int, int] = {}
        self.refusal: KafkaError | None = None
        self._topic = topic
        self._note = note
        self._metrics = metrics
        self._membership = membership
        self._failing = False
        self._sent_at: float | None = None  # Of the one on its way.

    def commit(self, consumer: Consumer, offsets: Mapping[int, int]) -> None:
        """Owe these offsets, and ask for all that are owed; do not wait."""
        self.owed.update(offsets)
        self.ask(consumer)

    def ask(self, consumer: Consumer) -> None:
        """Ask for what is owed, unless an earlier commit is on its way; do not wait."""
        lost = self._sent_at is not None and time.monotonic() - self._sent_at > ANSWER_S
        if self.owed and (self._sent_at is None or lost):
            self._send(consumer, self.owed)

    def begin_anew(self) -> None:
        """There is a new client: nothing is owed, and no answer to the old one will come."""
        self.owed.clear()
        self._sent_at = None

    def confirm(self, consumer: Consumer, partitions: Collection[int], limit_s: float) -> None:
        """Have what these partitions owe confirmed, waiting `limit_s` for a rebalance to pass.

        The client's own commit that waits has no bound; its question for what is committed has.
        """
        deadline = time.monotonic() + limit_s
        while owed := {p: self.owed[p] for p in partitions if p in self.owed}:
            if self.refusal is not None or time.monotonic() > deadline:
                return
            self._send(consumer, owed)  # Within a callback no answer to an earlier one is heard.
            try:
                for place in consumer.committed(self.places(owed), timeout=CONFIRM_S):
                    if place.error is None and place.offset == owed[place.partition]:
                        del self.owed[place.partition]
            except KafkaException as error:
                log.debug("Whether commits have arrived is not told: %s", error)
            if owed.keys() & self.owed.keys():
                time.sleep(AGAIN_S)

    def confirm_while_polling(self, consumer: Consumer, limit_s: float) -> None:
        """Have all that is owed confirmed, or say what was not within `limit_s`.

        What the consumer reads meanwhile is dropped: it is for one who leaves.
        """
        deadline = time.monotonic() + limit_s
        while self.owed and self.refusal is None and time.monotonic() < deadline:
            self.ask(consumer)
            consumer.poll(AGAIN_S)
        if self.owed:
            log.warning(
                "The last commits were not confirmed within %.0f s: partitions and offsets %s. "
                "If they failed, records before these offsets are read again.",
                limit_s,
                self.owed,
            )

    def raise_if_refused(self, group: str) -> None:
        """Raise what no asking again will mend.

        Raises:
            OutsideError: this user may not commit.
        """
        if self.refusal is not None:
            what = f"committing offsets of {self._topic} as group {group} failed"
            raise outside_error(f"{what}. Check this user's rights to both", self.refusal)

    def forget(self, partitions: Collection[int]) -> None:
        """Owe nothing for partitions that are no longer ours."""
        for partition in partitions:
            self.owed.pop(partition, None)

    def on_commit(self, error: KafkaError | None, places: list[TopicPartition]) -> None:
        """librdkafka's answer, and ours to its client's exceptions."""
        self._sent_at = None
        errors = [error, *(place.error for place in places)]
        failure = next((each for each in errors if each), None)
        for place in places:
            if not error and not place.error and self.owed.get(place.partition) == place.offset:
                del self.owed[place.partition]
        self._metrics.committed("failed" if failure else "ok")
        if failure is None:
            self._membership.accepted()
        elif failure.code() == KafkaError.UNKNOWN_MEMBER_ID:
            self._membership.refused_as_unknown()
        if failure and failure.code() in _REFUSED:
            self.refusal = failure
        if failure and failure.code() in _FENCED:
            self.owed.clear()
        if failure and not self._failing:
            log.warning(
                "A commit failed: %s. It is asked for again; until one succeeds, a crash repeats "
                "more than the turn in hand.",
                failure.str(),
                extra=fields(outcome="failed", code=failure.name()),
            )
        elif self._failing and not failure:
            log.info("Commits succeed again.", extra=fields(outcome="ok"))
        self._failing = failure is not None

    def _send(self, consumer: Consumer, offsets: Mapping[int, int]) -> None:
        places = self.places(offsets)
        self._sent_at = time.monotonic()
        try:
            consumer.commit(offsets=places, asynchronous=True)
        except KafkaException as error:
            self.on_commit(error.args[0], places)

    def places(self, offsets: Mapping[int, int]) -> list[TopicPartition]:
        """Return offsets as Kafka takes them, each with the note that goes with it."""
        note = self._note()
        return [TopicPartition(self._topic, p, offset, note) for p, offset in offsets.items()]
