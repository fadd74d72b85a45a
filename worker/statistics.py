"""What we read of librdkafka's statistics. Pure; its STATISTICS.md says what each field is."""

from __future__ import annotations

import msgspec


class _Times(msgspec.Struct):
    avg: int = 0
    p99: int = 0


class BrokerState(msgspec.Struct):
    """A connection: `rtt` in microseconds, `throttle` in milliseconds, since the last telling."""

    state: str
    source: str = ""
    outbuf_cnt: int = 0
    waitresp_cnt: int = 0
    txerrs: int = 0
    rxerrs: int = 0
    req_timeouts: int = 0
    rtt: _Times = msgspec.field(default_factory=_Times)
    throttle: _Times = msgspec.field(default_factory=_Times)


class _PartitionState(msgspec.Struct):
    hi_offset: int = -1
    fetchq_cnt: int = 0


class _TopicState(msgspec.Struct):
    partitions: dict[int, _PartitionState] = {}


class _GroupState(msgspec.Struct):
    state: str
    join_state: str


class Statistics(msgspec.Struct):
    """What we read of librdkafka's statistics."""

    brokers: dict[str, BrokerState] = {}
    topics: dict[str, _TopicState] = {}
    cgrp: _GroupState | None = None
    msg_cnt: int = 0
    msg_size: int = 0

    def known_brokers(self) -> list[BrokerState]:
        """Return the brokers that the client has to connect to, without its own makeshifts."""
        known = ("configured", "learned")
        return [broker for broker in self.brokers.values() if broker.source in known]

    def coordinators(self) -> list[BrokerState]:
        """Return the client's own connections to its group's, or its transactions', coordinator."""
        return [broker for broker in self.brokers.values() if broker.source == "logical"]

    @property
    def knows_a_broker(self) -> bool:
        """Whether the client has any broker to connect to."""
        return bool(self.known_brokers())

    def prefetched(self) -> int:
        """Return how many messages are fetched and not yet read."""
        topics = self.topics.values()
        return sum(part.fetchq_cnt for topic in topics for part in topic.partitions.values())

    def is_in_group(self, *, classic: bool) -> bool:
        """Return whether the consumer is a settled member of its group.

        With the newer protocol, one that has no partitions looks as if it had not joined yet.
        """
        settled = {"steady"} if classic else {"steady", "init"}
        return self.cgrp is not None and self.cgrp.state == "up" and self.cgrp.join_state in settled

    def ends(self, topic: str) -> dict[int, int]:
        """Return the end of each partition of a topic that is known."""
        partitions = self.topics[topic].partitions if topic in self.topics else {}
        return {p: state.hi_offset for p, state in partitions.items() if state.hi_offset >= 0}


read_statistics = msgspec.json.Decoder(Statistics).decode
