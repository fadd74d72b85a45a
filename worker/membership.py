"""One consumer in its group: is it being let in, has the group forgotten it, is it heard to leave?

Three faults of librdkafka 2.16 are met here, all of the classic group protocol's cooperative
members: one without partitions is closed without a word; one that is just being let in cannot say
that it leaves; and where a topic grows, or is made again, in the middle of a rebalance, a client
ignores for ever what its heartbeats are answered.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection

from confluent_kafka import Consumer, KafkaException

from worker.logs import fields

log = logging.getLogger(__name__)

POLL_S, LET_IN_LIMIT_S = 0.05, 3.0
# A client that sees the answers to its heartbeats (every 3 s, or 5 s in the newer protocol, unless
# set) joins again at once.
FORGOTTEN_S = 8.0


class Membership:
    """What is known of it. `session` says how long a static member keeps its place."""

    def __init__(self, static_id: str | None, session: str, *, classic: bool = True) -> None:
        self._static_id = static_id
        self._session = session
        self._classic = classic
        self._joining = False
        self._refused: tuple[float, float] | None = None  # First and last as unknown, in a row.

    def accepted(self) -> None:
        """The group took a commit of ours."""
        self._refused = None

    def refused_as_unknown(self) -> None:
        """The group took no commit, since it does not know us."""
        if not self._joining:  # Else it answers for the member that we were.
            now = time.monotonic()
            self._refused = (self._refused[0] if self._refused else now, now)

    def joins(self) -> None:
        """The client is about to join, for the first time or again."""
        self._joining, self._refused = True, None

    def is_let_in(self) -> None:
        """The group has given us our share."""
        self._joining, self._refused = False, None

    def is_forgotten(self) -> bool:
        """Whether the group has gone on without us and the client does not notice."""
        if self._refused is None or self._refused[1] - self._refused[0] < FORGOTTEN_S:
            return False
        log.warning("The group does not know us, and the client does not notice. Joining anew.")
        return True

    def say_change(self, kind: str, partitions: list[int], owned: Collection[int]) -> None:
        """Say that partitions were `assigned`, `revoked` or `lost`, and which are `owned` now."""
        level, what = logging.INFO, ""
        if kind == "lost":
            level = logging.WARNING
            what = (
                " Another worker may have them by now. Nothing of them is committed; what was "
                "read and not committed is read again."
            )
        log.log(
            level,
            "%s partitions %s; having %s.%s",
            kind.capitalize(),
            partitions,
            sorted(owned),
            what,
            extra=fields(kind=kind, partitions=partitions),
        )

    def say_it_stays(self, owned: Collection[int]) -> None:
        """Say for how long a static member that ends keeps its partitions."""
        if self._static_id and owned:
            log.info(
                "Static member %s keeps partitions %s for %s; then they go to others.",
                self._static_id,
                sorted(owned),
                self._session,
            )

    def leave(self, consumer: Consumer, owned: Collection[int], limit_s: float) -> None:
        """Close the client, and have the group hear of it; a static member keeps its place."""
        if self._static_id:
            consumer.close()
            return
        deadline = time.monotonic() + min(limit_s, LET_IN_LIMIT_S)
        try:
            while self._joining and self._classic and time.monotonic() < deadline:
                consumer.poll(POLL_S)
            if not owned:
                consumer.unsubscribe()
        except KafkaException as error:  # It failed for good, and is no member.
            log.debug("Leaving without a word: %s", error)
        consumer.close()
