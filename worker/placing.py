"""Begins partitions where they are to begin, once that is known, and deals with gaps.

A gap is input that was lost before it was read: retention was faster, or the topic was truncated,
deleted or made again. `ODRADEK_ON_GAP` says whether to stop or to jump; it is never silent.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

from confluent_kafka import Consumer, KafkaException, TopicPartition

from schemas.errors import OutsideError
from worker.assignments import Assignments
from worker.committer import Committer
from worker.hold import Hold, Holds
from worker.logs import fields
from worker.metrics import Metrics
from worker.positions import Positions, Topic
from worker.starts import Start

log = logging.getLogger(__name__)

SAY_AFTER_S = 5.0


class Placing:
    """The placing of one consumer's partitions."""

    def __init__(
        self,
        consumer: Consumer,
        topic: str,
        ours: Assignments,
        positions: Positions,
        committer: Committer,
        metrics: Metrics,
        holds: Holds,
        *,
        jump_gaps: bool,
        in_transactions: bool,
    ) -> None:
        self.consumer = consumer
        self._topic = topic
        self._ours = ours
        self._positions = positions
        self._committer = committer
        self._metrics = metrics
        self._holds = holds
        self._jump_gaps = jump_gaps
        self._in_transactions = in_transactions
        # None once we have said what we wait for.
        self._started_at: float | None = time.monotonic()

    def place(self) -> bool:
        """Begin in the partitions whose starts have become known; return whether the consumer is
        still of use: it is not where the topic was made again.

        Raises:
            OutsideError: a start cannot be had, or lies behind a gap that must not be jumped.
        """
        match self._positions.look():
            case Topic.SAME:
                self._holds.end(Hold.INPUT, f"topic {self._topic} is there.")
            case Topic.ANOTHER:
                log.warning("Topic %s was deleted and made again.", self._topic)
                self._ours.unplace(self._ours.owned)
                self._committer.forget(self._ours.owned)
                self._holds.end(Hold.INPUT, f"topic {self._topic} is there.")
                return False
            case Topic.GONE if self._positions.topic_id is not None:
                self._topic_is_gone()
        self._begin_all(self._positions.answers(self.consumer, self._ours.positions))
        return True

    def say_what_we_wait_for(self) -> None:
        """Tell once, when nothing has come for a while after the start."""
        if self._started_at is None or time.monotonic() - self._started_at < SAY_AFTER_S:
            return
        self._started_at = None
        if not self._ours.owned:
            log.info(
                "No partitions of %s yet. If a worker died lately, its session must expire first "
                "(45 s by default; KAFKA_CONSUMER_SESSION_TIMEOUT_MS), or others have them all.",
                self._topic,
            )
        elif self._positions.waiting:
            log.info(
                "The starts of some partitions are not known yet: the group's coordinator does "
                "not answer, or the transaction of a worker that died is not ended yet."
            )

    def _begin_all(self, starts: dict[int, Start]) -> None:
        for partition, start in starts.items():
            if start.gap:
                self._gap(partition, start)
        begun = self._committed(starts)
        if not begun:
            return
        places = {p: TopicPartition(self._topic, p, start.offset) for p, start in begun.items()}
        # A fetcher that met a gap has ended, and must be made anew. All in one pair of calls: in a
        # rebalance, librdkafka takes each pair for an answer to it.
        again = self._ours.fetched & places.keys()
        try:
            if again:
                self.consumer.incremental_unassign([places[partition] for partition in again])
            self.consumer.incremental_assign([*places.values()])
        except KafkaException as error:
            log.warning("Partitions %s cannot begin yet: %s", sorted(places), error)
            self._ours.fetched -= again
            self._positions.ask(places)
            return
        # librdkafka remembers a pause across assignments: a partition that went while we kept
        # alive comes back paused, and would stay so for ever.
        self.consumer.resume([*places.values()])
        for partition, start in begun.items():
            if partition in self._ours.numbers:
                self._ours.move(partition, start.offset)
            else:
                self._ours.begin(partition, start.offset)
        log.info("Beginning: %s.", _by_why(begun))

    def _committed(self, starts: dict[int, Start]) -> dict[int, Start]:
        """Have new starts committed, and return those that may begin now: where nothing arrives,
        the next start would be another.

        In transactions nothing is read before it is: it could arrive after one, and take the
        group back.
        """
        new = {
            partition: start.offset
            for partition, start in starts.items()
            if partition not in self._ours.numbers and start.why != "committed"
        }
        if new:
            self._committer.commit(self.consumer, new)
        if not new or not self._in_transactions:
            return starts
        self._committer.forget(new)
        self._positions.ask(new)
        return {partition: start for partition, start in starts.items() if partition not in new}

    def _gap(self, partition: int, start: Start) -> None:
        what = f"Partition {partition} of {self._topic}: {start.gap}. Records are lost"
        if not self._jump_gaps:
            raise OutsideError(
                f"{what}; stopping rather than skip them silently. To go on at offset "
                f"{start.offset}, the first that is there, start with ODRADEK_ON_GAP=jump, or "
                "move the group's offsets"
            )
        many = f"at least {start.lost_records}" if start.lost_records else "nobody knows how many"
        log.error(
            "%s: %s. Going on at %d.", what, many, start.offset, extra=fields(partition=partition)
        )
        self._metrics.gap(start.lost_records)

    def _topic_is_gone(self) -> None:
        what = f"topic {self._topic} is gone"
        if not self._jump_gaps:
            raise OutsideError(
                f"{what}; stopping. With ODRADEK_ON_GAP=jump the worker waits until it is made "
                "again"
            )
        self._holds.begin(Hold.INPUT, f"{what}; waiting until it is made again.")


def _by_why(starts: Mapping[int, Start]) -> str:
    """Say where partitions begin, in as few words as that takes."""
    if len(starts) <= 4 or len({start.why for start in starts.values()}) > 1:
        parts = [f"{p}: {start.offset} ({start.why})" for p, start in sorted(starts.items())]
        return ", ".join(parts)
    whys = {start.why for start in starts.values()}
    return f"{len(starts)} offsets ({', '.join(whys)})"
