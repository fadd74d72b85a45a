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
from typing import Any, cast

from schemas.dead_letter import STUB_BYTES, DeadLetter, Headers
from schemas.errors import OutsideError
from schemas.score import decode_score, truncate_score
from worker.assignments import Assignments
from worker.delivery import MustAbort
from worker.turn import Outgoing, Outputs, Records, Turn

MESSAGE_BYTES_MAX = 1_048_588  # As Kafka's max.message.bytes.

Position = tuple[int, int]  # Partition and offset in the source topic.


class DeliveryFailed(OutsideError):
    """The client failed for good: the simulation says so."""


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
        self.transactions: list[Transaction] = []

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

    def holds_back(self, group: Group, partition: int) -> bool:
        """Whether an open transaction has an offset of this partition: it may yet count."""
        return any(
            not transaction.ended
            and transaction.group is group
            and partition in transaction.offsets
            for transaction in self.transactions
        )

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
        self.take(member, offsets, self.owned_by(member))
        return True

    def owned_by(self, member: int) -> set[int]:
        return {partition for partition, owner in self.owner.items() if owner == member}

    def take(self, member: int, offsets: dict[int, int], owned: set[int]) -> None:
        """Take offsets whose committer was checked, when it owned these partitions."""
        for p, offset in offsets.items():
            before = self.committed.get(p, 0)
            self.committed[p] = offset
            accepted = Commit(member, p, offset, before, p in owned)
            self.commits.append(accepted)
            self.on_commit(accepted)


@dataclass
class Transaction:
    """What the broker knows of one: offsets once they are sent; whether it has ended."""

    offsets: dict[int, int] = field(default_factory=dict)
    group: Group | None = None
    member: int = 0
    owned: set[int] = field(default_factory=set)  # When the offsets were sent.
    ended: bool = False


@dataclass(frozen=True)
class _Pending:
    topic: str
    value: bytes | None
    key: bytes | None
    headers: Headers | None


class MemorySource:
    """A member of a group that reads one topic: `worker.delivery.CommittingSource` on a
    `MemoryLog`."""

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
        self._log = log
        self._topic = log.topics[topic]
        self._group = log.group(group, topic)
        self._batch_max = batch_max
        self._faults = faults or Faults(calm=True)
        self._clock = clock or Clock()
        self._settle_limit_s = settle_limit_s
        self._settle: Callable[[float], None] = lambda _: None
        self._ours = Assignments()
        self._commits: dict[int, int] = {}
        self._held: list[Stored] = []
        self.member = 0

    def start(self, settle: Callable[[float], None]) -> None:
        self._settle = settle
        self.member = self._group.join()

    def read(self, wait_s: float) -> Turn | None:
        self._faults.at("read")
        self._serve()
        self._ours.given_up.clear()
        self._place()
        records, self._held = self._held, []
        records += self._take(1)
        if not records:
            self._clock.advance(wait_s)
            return None
        # Kafka's callbacks may run inside a read that already holds records.
        self._faults.at("between poll and consume")
        self._serve()
        records += self._take(self._faults.at_most(self._batch_max) - 1)
        if self._ours.given_up:
            records = self._ours_of(records)
        return self._turn(records) if records else None

    def keep_alive(self, wait_s: float) -> None:
        self._faults.at("keep alive")
        self._clock.advance(wait_s)
        self._serve()
        if self._faults.happens(0.3):  # A record that was on its way when we paused.
            self._held += self._take(1)

    def still_owned(self, turn: Turn) -> Turn:
        return turn.restricted_to(self._ours.numbers)

    def commit(self, turn: Turn) -> None:
        self._faults.at("commit")
        offsets = self._ours.finish(turn)
        self._commits.update(offsets)
        self._send(offsets)
        self._faults.at("committed")

    def transaction_offsets(self, turn: Turn) -> object:
        return turn.offsets, self._group, self.member

    def done(self, turn: Turn) -> None:
        self._ours.finish(turn)

    def rewind(self) -> None:
        self._held = []
        self._ours.rewind()

    def close(self, limit_s: float) -> None:  # noqa: ARG002  # A memory log confirms at once.
        self._faults.at("close")
        if self.member not in self._group.members:
            return
        self._send({p: o for p, o in self._commits.items() if p in self._ours.numbers})
        self._group.leave(self.member)

    def _send(self, offsets: dict[int, int]) -> None:
        if not self._faults.happens(0.05):  # A commit may fail; that is not fatal.
            self._group.commit(self.member, offsets)

    def _serve(self) -> None:
        """Hear what the group's coordinator has decided, as in Kafka's callbacks."""
        if self.member not in self._group.members:  # Lost: others may have them by now.
            self._give_up(list(self._ours.owned))
            self.member = self._group.join()
        if revoked := self._group.to_revoke(self.member):
            self._settle(self._settle_limit_s)
            self._faults.at("revoked")
            self._give_up(revoked)
            self._group.give_up(self.member, revoked)
        for partition in self._group.to_assign(self.member):
            self._group.owner[partition] = self.member
            self._ours.assign([partition])

    def _place(self) -> None:
        """Begin where the group's commits say; those that a transaction holds back, later."""
        for partition in self._ours.owned - self._ours.numbers.keys():
            if not self._log.holds_back(self._group, partition):
                self._ours.begin(partition, self._group.committed.get(partition, 0))

    def _give_up(self, partitions: list[int]) -> None:
        self._ours.give_up(partitions)
        for partition in partitions:
            self._commits.pop(partition, None)
        self._held = [record for record in self._held if record.partition in self._ours.numbers]

    def _take(self, count: int) -> list[Stored]:
        taken: list[Stored] = []
        order = list(self._ours.positions)
        if not self._faults.calm:
            self._faults.random.shuffle(order)
        for partition in order:
            held = self._topic.partitions[partition]
            # Offsets have gaps, so a position is looked for, not indexed.
            waiting = [r for r in held if r.offset >= self._ours.positions[partition]]
            part = waiting[: count - len(taken)]
            if part:
                self._ours.positions[partition] = part[-1].offset + 1
                taken += part
        return taken

    def _ours_of(self, records: list[Stored]) -> list[Stored]:
        for partition in self._ours.given_up & self._ours.numbers.keys():
            self._ours.positions[partition] = self._ours.done[partition]
        kept = self._ours.numbers.keys() - self._ours.given_up
        return [record for record in records if record.partition in kept]

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
            self._ours.read(ends),
        )


class _Outputs:
    """What both sinks know: the two topics, and how outputs fit them."""

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
        self._slices_left = 0

    def write(self, outputs: Outputs) -> None:
        self._faults.at("write")
        self._hand_over(self._output_topic, outputs.scores)
        self._faults.at("half written")
        self._hand_over(self._dead_letter_topic, outputs.dead_letters)
        self._slices_left = self._faults.slices()
        self._faults.at("written")

    def position_of(self, topic: str, value: bytes | None, headers: Headers | None) -> Position:
        """Return the source position that an output names."""
        if topic == self._output_topic:
            source = decode_score(value or b"").source
            return source.partition, source.offset
        letter = DeadLetter.from_headers(headers or [])
        return letter.source_partition, letter.source_offset

    def _hand_over(self, topic: str, outgoing: Outgoing) -> None:
        headers = outgoing.headers or [None] * len(outgoing)
        columns = zip(outgoing.values, outgoing.keys, headers, strict=True)
        self._pending += [_Pending(topic, *record) for record in columns]

    def _append(self, record: _Pending) -> Position | None:
        """Have the broker take an output, if need be in a smaller form; None if it does not."""
        topic = self._log.topics.get(record.topic)
        if topic is None:
            return None
        for shrink in (lambda whole: whole, self._smaller, self._smallest):
            record = shrink(record)
            if _bytes(record) <= topic.message_bytes_max:
                self._log.append(record.topic, record.value, key=record.key, headers=record.headers)
                return self.position_of(record.topic, record.value, record.headers)
        return None

    def _smaller(self, record: _Pending) -> _Pending:
        value = record.value or b""
        if record.topic == self._output_topic:
            return _Pending(record.topic, truncate_score(value), record.key, None)
        letter = DeadLetter.from_headers(record.headers or []).as_stub(value)
        return _Pending(record.topic, value[:STUB_BYTES], record.key, letter.to_headers())

    def _smallest(self, record: _Pending) -> _Pending:
        value = record.value if record.topic == self._output_topic else b""
        return _Pending(record.topic, value, None, record.headers)


class MemorySink(_Outputs):
    """`worker.delivery.Sink` on a `MemoryLog`."""

    def __init__(self, *topics: Any, **options: Any) -> None:
        super().__init__(*topics, **options)
        self._unreported: list[Position] = []

    def settle(self, wait_s: float) -> bool:
        self._faults.at("settle")
        if (self._pending or self._unreported) and self._slices_left:
            self._slices_left -= 1
            self._clock.advance(wait_s)
            self._deliver(self._faults.happens(0.5))  # It has some, and has not said so.
            return False
        if self._pending and self._faults.happens(0.01):
            self._deliver(len(self._pending) // 2)
            raise DeliveryFailed("the client failed for good: the simulation says so")
        self._deliver(len(self._pending))
        if self._pending:  # Refused: held back, and tried again.
            self._clock.advance(wait_s)
            return False
        self._log.acknowledged.update(self._unreported)
        self._unreported = []
        return True

    def close(self) -> None:
        # What is on its way may still arrive, unheard.
        self._deliver(0 if self._faults.calm else self._faults.random.randint(0, 3))
        self._pending.clear()
        self._faults.at("sink closed")

    def _deliver(self, count: int) -> None:
        """Let the broker have the oldest outputs; those that it refuses stay."""
        delivered, rest = self._pending[:count], self._pending[count:]
        refused = []
        for record in delivered:
            position = self._append(record)
            if position is None:
                refused.append(record)
            else:
                self._unreported.append(position)
        self._pending = refused + rest


class MemoryTransactions(_Outputs):
    """`worker.delivery.TransactionalSink` on a `MemoryLog`.

    Its topics hold what a `read_committed` reader sees: outputs arrive with their commit.
    """

    committing = False
    transaction: Transaction | None = None
    _abort_slices = 0

    def write(self, outputs: Outputs) -> None:
        assert self.transaction is None, "a turn is written before the last is committed"
        self.transaction = Transaction()
        self._log.transactions.append(self.transaction)
        super().write(outputs)
        self._abort_slices = self._faults.slices()

    def commit(self, offsets: object, wait_s: float) -> bool:
        self._faults.at("settle")
        transaction = self._open()
        if self._slices_left:
            self._slices_left -= 1
            self._clock.advance(wait_s)
            return False
        if not self.committing:
            if transaction.ended or self._faults.happens(0.03):
                raise MustAbort  # It outlasted its time-out, or an output was refused.
            ends, group, member = cast("tuple[dict[int, int], Group, int]", offsets)
            if member not in group.members:
                raise MustAbort
            transaction.offsets, transaction.group, transaction.member = ends, group, member
            transaction.owned = group.owned_by(member)
            self.committing = True
            self._faults.at("offsets sent")
            if self._faults.happens(0.3):
                return False
        if transaction.ended:
            raise MustAbort
        positions = [self._append(record) for record in self._pending]
        assert None not in positions
        self._log.acknowledged.update(cast("list[Position]", positions))
        if transaction.group is not None and transaction.offsets:
            transaction.group.take(transaction.member, transaction.offsets, transaction.owned)
        self._end()
        self._faults.at("committed")
        return True

    def abort(self, wait_s: float) -> bool:
        self._faults.at("abort")
        self.committing = False
        if self._abort_slices:
            self._abort_slices -= 1
            self._clock.advance(wait_s)
            return False
        self._end()
        return True

    def idle(self) -> None:
        pass

    def close(self) -> None:
        self._faults.at("sink closed")
        if self.transaction is not None and not self.committing:
            self._end()

    def _open(self) -> Transaction:
        assert self.transaction is not None
        return self.transaction

    def _end(self) -> None:
        self._open().ended = True
        self.transaction = None
        self.committing = False
        self._pending = []


def _bytes(record: _Pending) -> int:
    headers = sum(len(name) + len(value or b"") for name, value in record.headers or [])
    return len(record.value or b"") + len(record.key or b"") + headers
