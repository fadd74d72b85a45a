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
from worker.metrics import Metrics
from worker.positions import Positions, Topic
from worker.starts import Note, Place, Start

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
    ) -> None:
        self.consumer = consumer
        self._topic = topic
        self._ours = ours
        self._positions = positions
        self._committer = committer
        self._metrics = metrics
        self._holds = holds
        self._jump_gaps = jump_gaps
        self._started_at: float | None = (
            time.monotonic()
        )  # None once we have said what we wait for.

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
        starts = self._positions.answers(self.consumer)
        for partition, start in starts.items():
            if start.gap:
                self._gap(partition, start)
            try:
                self._begin(partition, start)
            except KafkaException as error:  # Its fetcher is not up yet.
                log.debug("Partition %d cannot begin yet: %s", partition, error)
                self._positions.ask([partition])
        if starts.keys() & self._ours.numbers.keys():
            log.info("Beginning: %s.", _by_why(starts))
        return True

    def next_is_not_there(self, partition: int) -> None:
        """The record after the last one that we read is gone; what was read still counts."""
        offset = self._ours.positions.get(partition)
        here = Note.read(self._positions.note())
        self._positions.ask([partition], None if offset is None else Place(offset, here))

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

    def _begin(self, partition: int, start: Start) -> None:
        place = TopicPartition(self._topic, partition, start.offset)
        if start.gap or partition in self._ours.numbers:  # Its fetcher may have ended.
            self.consumer.incremental_unassign([place])
            self.consumer.incremental_assign([place])
        else:
            self.consumer.seek(place)
        if partition in self._ours.numbers:  # A gap in mid-run.
            self._ours.move(partition, start.offset)
        else:
            self._ours.begin(partition, start.offset)
            if start.why != "committed":
                # Where nothing arrives, the next start would be another one.
                self._committer.commit(self.consumer, {partition: start.offset})
        # librdkafka remembers a pause across assignments: a partition that went while we kept
        # alive comes back paused, and would stay so for ever.
        self.consumer.resume([place])

    def _gap(self, partition: int, start: Start) -> None:
        what = f"Partition {partition} of {self._topic}: {start.gap}. Records are lost"
        if not self._jump_gaps:
            raise OutsideError(
                f"{what}; stopping rather than skip them silently. To go on at offset "
                f"{start.offset}, the first that is there, start with ODRADEK_ON_GAP=jump, or "
                "move the group's offsets"
            )
        log.error("%s: at least %d. Going on at %d.", what, start.lost_records, start.offset)
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
