"""Where a topic ended at the start, and whether a group has done all that lies before.

The group's commits alone do not tell: the last offsets of a partition may be the marks of
transactions, or records of aborted ones, which no reader is given and so no commit passes. Where
commits stay behind, we look whether a record is left, as a consumer that is no member of the
group.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from worker.kafka_client import HEALS, BrokerWatch, Properties, make_client, outside_error
from worker.service import SLICE_S

REQUEST_S = 2.0
ASK_EVERY_S = 0.5
LOOK_S = 2.0
_PASSING = HEALS | {KafkaError.UNSTABLE_OFFSET_COMMIT}


class Ends:
    """The ends of one topic's partitions, and one group's way to them."""

    def __init__(
        self,
        properties: Properties,
        topic: str,
        group: str,
        watch: BrokerWatch,
        timeout_s: float,
    ) -> None:
        """Note the ends of now.

        Raises:
            OutsideError: the broker does not say them within `timeout_s`.
        """
        self._topic = topic
        self._group = group
        self._ask_at = 0.0
        self._behind: dict[int, int] | None = None  # By the latest answer.
        self._consumer = make_client(
            Consumer,
            {
                **{name: v for name, v in properties.items() if name != "group.instance.id"},
                "group.id": group,  # It asks for the group's offsets; it never joins.
                "enable.partition.eof": True,
                "error_cb": watch.on_error,
                # It looks at one record of a partition at most.
                "fetch.message.max.bytes": 65_536,
                "queued.min.messages": 1,
            },
        )
        ranges = self._ranges(watch, time.monotonic() + timeout_s)
        self._lows: Mapping[int, int] = {p: low for p, (low, _) in ranges.items()}
        self.ends: Mapping[int, int] = {p: end for p, (_, end) in ranges.items()}

    def reached(self) -> bool:
        """Return whether nothing is left for the group before the ends; False if not known.

        It takes a moment, seconds at most, but twice a second it answers in earnest at most.

        Raises:
            OutsideError: it cannot be known.
        """
        if time.monotonic() < self._ask_at:
            return False
        before, self._behind = self._behind, self._partitions_behind()
        done = self._behind == {}
        if self._behind and self._behind == before:  # As long as commits go on, something is left.
            done = self._nothing_after(self._behind)
        self._ask_at = time.monotonic() + ASK_EVERY_S
        return done

    def close(self) -> None:
        """Let go of the consumer."""
        self._consumer.close()

    def _ranges(self, watch: BrokerWatch, deadline: float) -> Mapping[int, tuple[int, int]]:
        """Return where each partition begins and ends."""
        ranges = None
        while ranges is None:
            try:
                topic = self._consumer.list_topics(self._topic, REQUEST_S).topics[self._topic]
                ranges = {p: self._range(p) for p in topic.partitions}
            except KafkaException as error:
                watch.raise_if_refused()
                if error.args[0].code() not in _PASSING or time.monotonic() > deadline:
                    raise outside_error(
                        f"where {self._topic} ends is not known; not starting", error
                    ) from None
        return ranges

    def _range(self, partition: int) -> tuple[int, int]:
        # Of what may be read: up to the first transaction that is open.
        place = TopicPartition(self._topic, partition)
        return self._consumer.get_watermark_offsets(place, timeout=REQUEST_S, cached=False)

    def _partitions_behind(self) -> dict[int, int] | None:
        """Return the partitions whose ends no commit has reached, and where they are; None if
        that cannot be told now."""
        places = [TopicPartition(self._topic, partition) for partition in self.ends]
        try:
            committed = self._consumer.committed(places, timeout=REQUEST_S)
            for place in committed:
                if place.error is not None:
                    raise KafkaException(place.error)  # noqa: TRY301  # Told as the others are.
        except KafkaException as error:
            if error.args[0].code() in _PASSING:
                return None
            raise outside_error(f"the offsets of {self._group} cannot be read", error) from None
        reached = {p.partition: max(p.offset, self._lows[p.partition]) for p in committed}
        return {p: offset for p, offset in reached.items() if offset < self.ends[p]}

    def _nothing_after(self, places: Mapping[int, int]) -> bool:
        """Return whether no record lies between these places and the ends."""
        self._consumer.assign([TopicPartition(self._topic, p, at) for p, at in places.items()])
        try:
            return self._first_is_an_end(set(places))
        finally:
            self._consumer.unassign()

    def _first_is_an_end(self, partitions: set[int]) -> bool:
        """Return whether the first that each partition gives is its end, or lies beyond."""
        deadline = time.monotonic() + LOOK_S
        while partitions and time.monotonic() < deadline:
            for message in self._consumer.consume(100, SLICE_S):
                error, partition, offset = message.error(), message.partition(), message.offset()
                if partition is None or offset is None:
                    continue
                if error is None and offset < self.ends[partition]:
                    return False
                if error is None or error.code() == KafkaError._PARTITION_EOF:
                    partitions.discard(partition)
        return not partitions
