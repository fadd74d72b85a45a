"""What partitions hold, asked of their leaders without waiting.

By an admin client that is new each time (see `worker.positions`), and not by the consumer: its
questions wait behind its own fetches, 500 ms on a quiet topic, for each partition.
"""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import Future
from typing import Any

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]  # Untyped.

from worker.kafka_client import PASSING
from worker.starts import Range

REQUEST_S = 1.0

_Asked = dict[TopicPartition, Future[Any]]


class Ranges:
    """One round of questions."""

    def __init__(
        self, admin: AdminClient, topic: str, partitions: Collection[int], from_time_ms: int | None
    ) -> None:
        self._admin = admin  # It must live for as long as its answers are waited for.
        places = [TopicPartition(topic, partition) for partition in partitions]

        def asked(spec: Any) -> _Asked:  # noqa: ANN401  # The client is untyped.
            answers: _Asked = admin.list_offsets(
                dict.fromkeys(places, spec), request_timeout=REQUEST_S
            )
            return answers

        self._lows = asked(OffsetSpec.earliest())  # type: ignore[no-untyped-call]
        self._highs = asked(OffsetSpec.latest())  # type: ignore[no-untyped-call]
        self._times: _Asked | None = None
        if from_time_ms is not None:
            self._times = asked(OffsetSpec.for_timestamp(from_time_ms))

    def are_told(self) -> bool:
        """Return whether all answers are there."""
        asked = [*self._lows.values(), *self._highs.values(), *(self._times or {}).values()]
        return all(future.done() for future in asked)

    def held(self, topic_id: str) -> dict[int, Range]:
        """Return what is known; what could not be told must be asked for again.

        Raises:
            KafkaException: asking again will not help.
        """
        known: dict[int, Range] = {}
        for place in self._lows:
            try:
                low, high = self._lows[place].result().offset, self._highs[place].result().offset
                at = self._times[place].result().offset if self._times else -1
            except KafkaException as error:
                if error.args[0].code() not in PASSING:
                    raise
                continue
            known[place.partition] = Range(low, high, topic_id, at if at >= 0 else None)
        return known
