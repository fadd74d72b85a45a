"""An in-memory topic log with consumer groups, and a source and a sink on it.

It imitates what the worker's promises depend on, and nothing else: partitions with gaps in
their offsets, committed offsets, cooperative rebalances in which a partition is revoked before it
is assigned again, members that are expelled and learn of it later, acknowledgements that come
late, and outputs that are refused. The broker checks who is a member at a commit, not who owns
the partition: as Kafka does. `tests/broker` runs one suite on this and on Apache Kafka.

Nothing here waits or starts a thread. Whatever may go wrong is asked of `Faults`.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from schemas.dead_letter import STUB_BYTES, DeadLetter, Headers
from schemas.score import decode_score, truncate_score
from worker.service import DeliveryFailed
from worker.turn import Outgoing, Outputs, Records, Turn

MESSAGE_BYTES_MAX = 1_048_588  # As Kafka's max.message.bytes.

Position = tuple[int, int]  # Partition and offset in the source topic.


class Crash(BaseException):
    """The process ends here, as by SIGKILL: nothing of it may act after this."""


@dataclass(frozen=True)
class Stored:
    partition: int
    offset: int
    value: bytes | None
    key: bytes | None
    headers: Headers | None
    timestamp_ms: int


class Clock:
    """Time that passes only where something waits."""

    def __init__(self) -> None:
        self.now = 1000.0

    def advance(self, seconds: float) -> None:
        self.now += seconds

    def __call__(self) -> float:
        return self.now


class Faults:
    """What goes wrong, drawn from one seed; nothing does where `calm`.

    `pause` is called with the name of every step: the simulation lets others move there, or
    raises `Crash`.
    """

    def __init__(
        self, seed: int = 0, *, calm: bool = False, pause: Callable[[str], None] | None = None
    ) -> None:
        self.random = random.Random(seed)
        self.calm = calm
        self._pause = pause

    def at(self, step: str) -> None:
        if self._pause is not None:
            self._pause(step)

    def happens(self, probability: float) -> bool:
        return not self.calm and self.random.random() < probability

    def at_most(self, batch_max: int) -> int:
        """How many of the waiting records one read gets."""
        return batch_max if self.calm else self.random.randint(1, batch_max)

    def slices(self) -> int:
        """How many slices of waiting pass before a turn's outputs are acknowledged."""
        if self.calm:
            return 0
        return self.random.choice([0, 0, 1, 3, 12, 40])


@dataclass
class Topic:
    name: str
    partitions: list[list[Stored]]
    message_bytes_max: int = MESSAGE_BYTES_MAX

    def end(self, partition: int) -> int:
        held = self.partitions[partition]
        return held[-1].offset + 1 if held else 0

    def place_of(self, key: bytes | None) -> int:
        return zlib.crc32(key or b"") % len(self.partitions)

    def records(self) -> list[Stored]:
        return [stored for partition in self.partitions for stored in partition]


class MemoryLog:
    """Topics and consumer groups: the broker."""

    def __init__(self) -> None:
        self.topics: dict[str, Topic] = {}
        self._groups: dict[tuple[str, str], Group] = {}
        self.acknowledged: set[Position] = set()

    def create_topic(
        self, name: str, partitions: int = 1, message_bytes_max: int = MESSAGE_BYTES_MAX
    ) -> None:
        self.topics[name] = Topic(name, [[] for _ in range(partitions)], message_bytes_max)

    def append(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Headers | None = None,
        timestamp_ms: int = 0,
        partition: int | None = None,
        gap: int = 0,
    ) -> Position:
        """Append a record; `gap` offsets before it stay empty, as after a compaction."""
        held = self.topics[topic]
        partition = held.place_of(key) if partition is None else partition
        offset = held.end(partition) + gap
        held.partitions[partition].append(
            Stored(partition, offset, value, key, headers, timestamp_ms)
        )
        return partition, offset

    def group(self, name: str, topic: str) -> Group:
        partitions = len(self.topics[topic].partitions)
        return self._groups.setdefault((name, topic), Group(partitions))


@dataclass(frozen=True)
class Commit:
    """A commit that the broker accepted, and whether the committer owned the partition."""

    member: int
    partition: int
    offset: int
    before: int
    owned: bool


@dataclass
class Group:
    """A consumer group's coordinator, for one topic.

    `target` is who should have a partition, `owner` who has been given it. A partition goes to its
    target once its owner has given it up, is expelled, or has left.
    """

    partitions: int
    members: list[int] = field(default_factory=list)
    target: dict[int, int] = field(default_factory=dict)
    owner: dict[int, int] = field(default_factory=dict)
    committed: dict[int, int] = field(default_factory=dict)
    commits: list[Commit] = field(default_factory=list)
    on_commit: Callable[[Commit], None] = lambda _: None
    _next_member: int = 1

    def join(self) -> int:
        member = self._next_member
        self._next_member += 1
        self.members.append(member)
        self.balance()
        return member

    def expel(self, member: int) -> None:
        """Take a member out, as after a session timeout; it does not know yet."""
        self.members.remove(member)
        self.owner = {p: other for p, other in self.owner.items() if other != member}
        self.balance()

    leave = expel

    def balance(self, shuffle: Callable[[list[int]], None] = lambda _: None) -> None:
        """Decide anew who should have what."""
        order = list(self.members)
        shuffle(order)
        self.target = {p: order[p % len(order)] for p in range(self.partitions)} if order else {}

    def to_revoke(self, member: int) -> list[int]:
        return [p for p, owner in self.owner.items() if owner == member != self.target.get(p)]

    def to_assign(self, member: int) -> list[int]:
        return [p for p, owner in self.target.items() if owner == member and p not in self.owner]

    def give_up(self, member: int, partitions: Iterable[int]) -> None:
        for partition in partitions:
            if self.owner.get(partition) == member:
                del self.owner[partition]

    def commit(self, member: int, offsets: dict[int, int]) -> bool:
        """Take a commit of any member, for any partition; False if it is no member."""
        if member not in self.members:
            return False
        for p, offset in offsets.items():
            before = self.committed.get(p, 0)
            self.committed[p] = offset
            accepted = Commit(member, p, offset, before, self.owner.get(p) == member)
            self.commits.append(accepted)
            self.on_commit(accepted)
        return True


class MemorySource:
    """A member of a group that reads one topic: `worker.service.Source` on a `MemoryLog`."""

    def __init__(
        self,
        log: MemoryLog,
        topic: str,
        group: str,
        batch_max: int,
        *,
        faults: Faults | None = None,
        clock: Clock | None = None,
        settle_limit_s: float = 2.0,
    ) -> None:
        self._topic = log.topics[topic]
        self._group = log.group(group, topic)
        self._batch_max = batch_max
        self._faults = faults or Faults(calm=True)
        self._clock = clock or Clock()
        self._settle_limit_s = settle_limit_s
        self._settle: Callable[[float], None] = lambda _: None
        self._numbers: dict[int, int] = {}  # Partition -> the number of its assignment.
        self._next_number = 1
        self._starts: dict[int, int] = {}
        self._positions: dict[int, int] = {}
        self._commits: dict[int, int] = {}
        self._held: list[Stored] = []
        self._given_up: set[int] = set()  # In the read in hand.
        self.member = 0

    def start(self, settle: Callable[[float], None]) -> None:
        self._settle = settle
        self.member = self._group.join()

    def read(self, wait_s: float) -> Turn | None:
        self._faults.at("read")
        self._given_up.clear()
        records, self._held = self._held, []
        self._serve()
        records += self._take(1)
        if not records:
            self._clock.advance(wait_s)
            return None
        # Kafka's callbacks may run inside a read that already holds records.
        self._faults.at("between poll and consume")
        self._serve()
        records += self._take(self._faults.at_most(self._batch_max) - 1)
        if self._given_up:
            records = self._without_given_up(records)
        return self._turn(records) if records else None

    def keep_alive(self) -> None:
        self._faults.at("keep alive")
        self._serve()
        if self._faults.happens(0.3):  # A record that was on its way when we paused.
            self._held += self._take(1)

    def still_owned(self, turn: Turn) -> Turn:
        return turn.restricted_to(self._numbers)

    def commit(self, turn: Turn) -> None:
        self._faults.at("commit")
        offsets = turn.restricted_to(self._numbers).offsets
        self._commits.update(offsets)
        self._send(offsets)
        self._faults.at("committed")

    def close(self, limit_s: float) -> None:  # noqa: ARG002  # A memory log confirms at once.
        self._faults.at("close")
        if self.member not in self._group.members:
            return
        self._send({p: offset for p, offset in self._commits.items() if p in self._numbers})
        self._group.leave(self.member)

    def _send(self, offsets: dict[int, int]) -> None:
        if not self._faults.happens(0.05):  # A commit may fail; that is not fatal.
            self._group.commit(self.member, offsets)

    def _serve(self) -> None:
        """Hear what the group's coordinator has decided, as in Kafka's callbacks."""
        if self.member not in self._group.members:  # Lost: others may have them by now.
            self._give_up(list(self._numbers))
            self.member = self._group.join()
        if revoked := self._group.to_revoke(self.member):
            self._settle(self._settle_limit_s)
            self._faults.at("revoked")
            self._give_up(revoked)
            self._group.give_up(self.member, revoked)
        for partition in self._group.to_assign(self.member):
            self._group.owner[partition] = self.member
            start = self._group.committed.get(partition, 0)
            self._numbers[partition] = self._next_number
            self._starts[partition] = self._positions[partition] = start
            self._next_number += 1

    def _give_up(self, partitions: list[int]) -> None:
        for partition in partitions:
            for places in (self._numbers, self._starts, self._positions, self._commits):
                places.pop(partition, None)
        self._given_up.update(partitions)
        self._held = [record for record in self._held if record.partition in self._numbers]

    def _take(self, count: int) -> list[Stored]:
        taken: list[Stored] = []
        order = list(self._positions)
        if not self._faults.calm:
            self._faults.random.shuffle(order)
        for partition in order:
            held = self._topic.partitions[partition]
            # Offsets have gaps, so a position is looked for, not indexed.
            waiting = [r for r in held if r.offset >= self._positions[partition]]
            part = waiting[: count - len(taken)]
            if part:
                self._positions[partition] = part[-1].offset + 1
                taken += part
        return taken

    def _without_given_up(self, records: list[Stored]) -> list[Stored]:
        for partition in self._given_up & self._numbers.keys():  # It came back within the read.
            self._positions[partition] = self._starts[partition]
        return [record for record in records if record.partition not in self._given_up]

    def _turn(self, read: list[Stored]) -> Turn:
        ends = {record.partition: record.offset + 1 for record in read}
        return Turn(
            Records(
                self._topic.name,
                [record.partition for record in read],
                [record.offset for record in read],
                [record.timestamp_ms for record in read],
                [record.key for record in read],
                [record.value for record in read],
                [record.headers for record in read],
            ),
            ends,
            {p: self._numbers[p] for p in ends},
        )


@dataclass(frozen=True)
class _Pending:
    topic: str
    value: bytes | None
    key: bytes | None
    headers: Headers | None


class MemorySink:
    """`worker.service.Sink` on a `MemoryLog`."""

    def __init__(
        self,
        log: MemoryLog,
        output_topic: str,
        dead_letter_topic: str,
        *,
        faults: Faults | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._log = log
        self._output_topic = output_topic
        self._dead_letter_topic = dead_letter_topic
        self._faults = faults or Faults(calm=True)
        self._clock = clock or Clock()
        self._pending: list[_Pending] = []
        self._unreported: list[Position] = []
        self._slices_left = 0

    def write(self, outputs: Outputs) -> None:
        self._faults.at("write")
        self._hand_over(self._output_topic, outputs.scores)
        self._faults.at("half written")
        self._hand_over(self._dead_letter_topic, outputs.dead_letters)
        self._slices_left = self._faults.slices()
        self._faults.at("written")

    def settle(self, wait_s: float) -> bool:
        self._faults.at("settle")
        if (self._pending or self._unreported) and self._slices_left:
            self._slices_left -= 1
            self._clock.advance(wait_s)
            self._deliver(self._faults.happens(0.5))  # It has some, and has not said so.
            return False
        if self._pending and self._faults.happens(0.01):
            self._deliver(len(self._pending) // 2)
            raise DeliveryFailed("an output was refused for good: the simulation says so")
        self._deliver(len(self._pending))
        self._log.acknowledged.update(self._unreported)
        self._unreported.clear()
        return True

    def close(self) -> None:
        # What is on its way may still arrive, unheard.
        self._deliver(0 if self._faults.calm else self._faults.random.randint(0, 3))
        self._pending.clear()
        self._faults.at("sink closed")

    def _hand_over(self, topic: str, outgoing: Outgoing) -> None:
        headers = outgoing.headers or [None] * len(outgoing)
        columns = zip(outgoing.values, outgoing.keys, headers, strict=True)
        self._pending += [_Pending(topic, *record) for record in columns]

    def _deliver(self, count: int) -> None:
        """Let the broker have the oldest outputs."""
        delivered, self._pending = self._pending[:count], self._pending[count:]
        for record in delivered:
            topic = self._log.topics.get(record.topic)
            if topic is None:
                raise DeliveryFailed(f"there is no topic {record.topic}")
            if _bytes(record) > topic.message_bytes_max:
                record = self._smaller(record)
            if _bytes(record) > topic.message_bytes_max:
                record = self._smallest(record)
                if _bytes(record) > topic.message_bytes_max:
                    raise DeliveryFailed(f"an output is too large for {record.topic}")
            self._log.append(record.topic, record.value, key=record.key, headers=record.headers)
            self._unreported.append(self.position_of(record.topic, record.value, record.headers))

    def position_of(self, topic: str, value: bytes | None, headers: Headers | None) -> Position:
        """Return the source position that an output names."""
        if topic == self._output_topic:
            source = decode_score(value or b"").source
            return source.partition, source.offset
        letter = DeadLetter.from_headers(headers or [])
        return letter.source_partition, letter.source_offset

    def _smaller(self, record: _Pending) -> _Pending:
        value = record.value or b""
        if record.topic == self._output_topic:
            return _Pending(record.topic, truncate_score(value), record.key, None)
        letter = DeadLetter.from_headers(record.headers or []).as_stub(value)
        return _Pending(record.topic, value[:STUB_BYTES], record.key, letter.to_headers())

    def _smallest(self, record: _Pending) -> _Pending:
        value = record.value if record.topic == self._output_topic else b""
        return _Pending(record.topic, value, None, record.headers)


def _bytes(record: _Pending) -> int:
    headers = sum(len(name) + len(value or b"") for name, value in record.headers or [])
    return len(record.value or b"") + len(record.key or b"") + headers
