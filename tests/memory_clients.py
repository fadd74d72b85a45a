"""A source and two sinks on a `MemoryLog`: what the worker sees of Kafka's clients.

The source has the worker's own numbering of assignments and its own committer; what is imitated is
the client below them. Nothing here starts a thread, or waits but for a commit to be confirmed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

from confluent_kafka import KafkaError, TopicPartition

from schemas.dead_letter import STUB_BYTES, DeadLetter, Headers
from schemas.score import decode_score, truncate_score
from tests.memory_log import (
    Clock,
    DeliveryFailed,
    Faults,
    Group,
    MemoryLog,
    Position,
    Stored,
    Transaction,
)
from worker.assignments import Assignments
from worker.committer import Committer
from worker.delivery import MustAbort
from worker.hold import Hold, Holds
from worker.membership import Membership
from worker.trace_context import short_trace_headers
from worker.turn import Outgoing, Outputs, Records, Turn

# In seconds of the machine. Only where a member is expelled while it confirms is it waited for,
# which nobody is in a gentle history.
CONFIRM_LIMIT_S, GENTLE_LIMIT_S = 0.2, 60.0


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
        self.group = log.group(group, topic)
        self._batch_max = batch_max
        self.faults = faults or Faults(calm=True)
        self.clock = clock or Clock()
        self._settle_limit_s = settle_limit_s
        self._settle: Callable[[float], None] = lambda _: None
        self._ours = Assignments()
        uncounted = cast("Any", SimpleNamespace(committed=lambda _: None))
        self.committer = Committer(topic, uncounted, lambda: "", Membership(None, ""))
        self._consumer = cast("Any", MemoryConsumer(self))
        self._held: list[Stored] = []
        self._closing = False
        self.member = 0

    def start(self, settle: Callable[[float], None]) -> None:
        self._settle = settle
        self.member = self.group.join()

    def read(self, wait_s: float) -> Turn | None:
        self.faults.at("read")
        self._consumer.poll(0)
        self._ours.given_up.clear()
        self._place()
        records, self._held = self._held, []
        records += self._take(1)
        if not records:
            self.committer.ask(self._consumer)
            self.clock.advance(wait_s)
            return None
        # Kafka's callbacks may run inside a read that already holds records.
        self.faults.at("between poll and consume")
        self._consumer.poll(0)
        records += self._take(self.faults.at_most(self._batch_max) - 1)
        if self._ours.given_up:
            records = self._ours_of(records)
        return self._turn(records) if records else None

    def keep_alive(self, wait_s: float) -> None:
        self.faults.at("keep alive")
        self._consumer.poll(wait_s)
        self.committer.ask(self._consumer)
        if self.faults.happens(0.3):  # A record that was on its way when we paused.
            self._held += self._take(1)

    def still_owned(self, turn: Turn) -> Turn:
        return turn.restricted_to(self._ours.numbers)

    def commit(self, turn: Turn) -> None:
        self.faults.at("commit")
        if offsets := self._ours.finish(turn):
            self.committer.commit(self._consumer, offsets)
        self.faults.at("committed")

    def transaction_offsets(self, turn: Turn) -> object:
        return turn.offsets, self.group, self.member

    def done(self, turn: Turn) -> None:
        self._ours.finish(turn)

    def rewind(self) -> None:
        self._held = []
        self._ours.rewind()

    def refused_as_unknown(self) -> None:
        """Here a client that was expelled notices by itself."""

    def place_anew(self) -> None:
        self._held = []
        self._ours.unplace(self._ours.owned)

    def close(self, limit_s: float) -> None:
        self._closing = True
        self.faults.at("close")
        self.committer.confirm_while_polling(self._consumer, limit_s)
        if self.member in self.group.members:
            self._consumer.arrive()  # What is on its way comes before the word that we leave.
            self.group.leave(self.member)

    def serve(self) -> None:
        """Hear what the group's coordinator has decided, as in Kafka's callbacks."""
        if self.member not in self.group.members:  # Lost: others may have them by now.
            self._give_up(list(self._ours.owned))
            self.member = self.group.join()
        if revoked := self.group.to_revoke(self.member):
            if not self._closing:
                self._settle(self._settle_limit_s)
            self.faults.at("revoked")
            limit_s = GENTLE_LIMIT_S if self.faults.gentle else CONFIRM_LIMIT_S
            self.committer.confirm(self._consumer, revoked, limit_s)
            self._consumer.arrive()
            self._give_up(revoked)
            self.group.give_up(self.member, revoked)
        if not self._closing:
            for partition in self.group.to_assign(self.member):
                self.group.owner[partition] = self.member
                self._ours.assign([partition])

    def _place(self) -> None:
        """Begin where the group's commits say; those that a transaction holds back, later."""
        for partition in self._ours.owned - self._ours.numbers.keys():
            if not self._log.holds_back(self.group, partition):
                self._ours.begin(partition, self.group.committed.get(partition, 0))

    def _give_up(self, partitions: list[int]) -> None:
        self._ours.give_up(partitions)
        self.committer.forget(partitions)
        self._held = [record for record in self._held if record.partition in self._ours.numbers]

    def _take(self, count: int) -> list[Stored]:
        taken: list[Stored] = []
        order = list(self._ours.positions)
        if not self.faults.calm:
            self.faults.random.shuffle(order)
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


class MemoryConsumer:
    """What the worker's committer calls of Kafka's client.

    Commits go out in order, on one connection with the group's own requests; the broker gets to
    them later, and may refuse them. Answers are heard when the client is polled.
    """

    def __init__(self, source: MemorySource) -> None:
        self._source = source
        self._sent: list[tuple[int, list[TopicPartition]]] = []
        self._answers: list[tuple[KafkaError | None, list[TopicPartition]]] = []

    def commit(self, offsets: list[TopicPartition], *, asynchronous: bool) -> None:
        assert asynchronous, "the client's own wait has no bound"
        self._sent.append((self._source.member, offsets))

    def committed(self, places: list[TopicPartition], timeout: float) -> list[TopicPartition]:  # noqa: ARG002  # Kafka's.
        self.arrive()
        committed = self._source.group.committed
        return [TopicPartition(p.topic, p.partition, committed.get(p.partition, 0)) for p in places]

    def poll(self, wait_s: float) -> None:
        if not self._source.faults.happens(0.5):
            self.arrive()
        self._source.serve()
        answers, self._answers = self._answers, []
        if not answers:
            self._source.clock.advance(wait_s)
        for error, places in answers:
            self._source.committer.on_commit(error, places)

    def arrive(self) -> None:
        """Have the broker take what was sent so far."""
        sent, self._sent = self._sent, []
        for member, places in sent:
            error = None
            if self._source.faults.happens(0.1):
                error = KafkaError(KafkaError.ILLEGAL_GENERATION)  # A rebalance was under way.
            elif not self._source.group.commit(member, {p.partition: p.offset for p in places}):
                error = KafkaError(KafkaError.UNKNOWN_MEMBER_ID)
            self._answers.append((error, places))


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
        holds: Holds | None = None,
    ) -> None:
        self._log = log
        self._holds = holds
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

    def _refuses(self, topic: str) -> bool:
        """Whether the topic takes nothing at the moment; the worker holds while that is so."""
        refuses = topic in self._log.refusing
        if self._holds is not None and refuses:
            self._holds.begin(Hold.OUTPUT, f"an output to topic {topic} is refused")
        elif self._holds is not None and not self._log.refusing:
            self._holds.end(Hold.OUTPUT, "the outputs are taken again.")
        return refuses

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
            kept = short_trace_headers(record.headers or []) or None
            return _Pending(record.topic, truncate_score(value), record.key, kept)
        letter = DeadLetter.from_headers(record.headers or []).as_stub(value)
        kept = short_trace_headers(record.headers or []) + letter.to_headers()
        return _Pending(record.topic, value[:STUB_BYTES], record.key, kept)

    def _smallest(self, record: _Pending) -> _Pending:
        if record.topic == self._output_topic:
            return _Pending(record.topic, record.value, None, None)
        letter = DeadLetter.from_headers(record.headers or [])
        return _Pending(record.topic, b"", None, letter.to_headers())


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
        if self._pending and self._faults.loses(0.01):
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
            position = None if self._refuses(record.topic) else self._append(record)
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
            refused = any(self._refuses(record.topic) for record in self._pending)
            if refused or transaction.ended or self._faults.happens(0.03):
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
        if self._faults.happens(0.03):  # The client fails, and nobody tells it of the commit.
            transaction.ended = True
            raise MustAbort
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
