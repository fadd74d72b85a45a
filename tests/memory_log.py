"""An in-memory topic log with consumer groups; `tests.memory_clients` has a source and sinks on it.

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

from schemas.dead_letter import Headers
from schemas.errors import OutsideError

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
    """What goes wrong, drawn from one seed; nothing does where `calm`, and where `gentle` only what
    makes nobody repeat anything.

    `pause` is called with the name of every step: the simulation lets others move there, or
    raises `Crash`.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        calm: bool = False,
        gentle: bool = False,
        pause: Callable[[str], None] | None = None,
    ) -> None:
        self.random = random.Random(seed)
        self.calm = calm
        self.gentle = gentle
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

    def loses(self, probability: float) -> bool:
        """Whether a client fails for good."""
        return not self.gentle and self.happens(probability)


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
        self.refusing: set[str] = set()  # Topics that take nothing at the moment.
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
