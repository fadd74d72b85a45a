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

log = logging.getLogger(__name__)

POLL_S, LET_IN_LIMIT_S = 0.05, 3.0
# A client that sees the answers to its heartbeats (every 3 s by default) joins again at once.
FORGOTTEN_S = 5.0


class Membership:
    """What is known of it. `session` says how long a static member keeps its place."""

    def __init__(self, static_id: str | None, session: str) -> None:
        self.joining = False
        self._static_id = static_id
        self._session = session
        self._unknown_since: float | None = None

    def accepted(self) -> None:
        """The group took a commit of ours."""
        self._unknown_since = None

    def refused_as_unknown(self) -> None:
        """The group took no commit, since it does not know us."""
        self._unknown_since = self._unknown_since or time.monotonic()

    def is_forgotten(self) -> bool:
        """Whether the group has gone on without us and the client does not notice."""
        if self._unknown_since is None or time.monotonic() - self._unknown_since < FORGOTTEN_S:
            return False
        log.warning("The group does not know us, and the client does not notice. Joining anew.")
        return True

    def begin_anew(self) -> None:
        """A new client is about to join."""
        self.joining = True
        self._unknown_since = None

    def leave(self, consumer: Consumer, owned: Collection[int], limit_s: float) -> None:
        """Close the client, and have the group hear of it; a static member keeps its place."""
        if self._static_id:
            if owned:
                log.info(
                    "Static member %s keeps partitions %s for %s; then they go to others.",
                    self._static_id,
                    sorted(owned),
                    self._session,
                )
            consumer.close()
            return
        deadline = time.monotonic() + min(limit_s, LET_IN_LIMIT_S)
        try:
            while self.joining and time.monotonic() < deadline:
                consumer.poll(POLL_S)
            if not owned:
                consumer.unsubscribe()
        except KafkaException as error:  # It failed for good, and is no member.
            log.debug("Leaving without a word: %s", error)
        consumer.close()
