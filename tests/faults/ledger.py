"""The ledger: what was sent, what came of it, and which faults may explain a repeat. Pure.

1. An event is its number; a position is where the broker put it. Every output must name both.
2. A repeat is explained only by a fault that interrupts: it was first written before that fault
   was over, written again after it began, and lies at or beyond what was committed at its blow.
3. It lies in the turn that was cut off: no partition has more of them than a turn has records.
4. Whatever cannot be explained is a miss, and a miss is never averaged away.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tests.faults.entries import CLOCK_SLACK_MS, Balance, Blow, Output, Position, Repeat


@dataclass
class Ledger:
    """Everything sent and everything answered, as it comes in, in whatever order."""

    exactly_once: bool = False
    sent: dict[int, Position] = field(default_factory=dict)
    deleted: set[int] = field(default_factory=set)  # No longer in the input.
    destroyed: set[int] = field(default_factory=set)  # Deleted before they were committed.
    blows: list[Blow] = field(default_factory=list)
    _first: dict[int, Output] = field(default_factory=dict)
    _repeats: dict[int, list[Output]] = field(default_factory=dict)
    _nameless: dict[tuple[int, int], list[Output]] = field(default_factory=dict)
    _numbers: dict[tuple[int, int], int] = field(default_factory=dict)  # Latest incarnation's.
    _waiting: dict[int, float] = field(default_factory=dict)
    _answered_to: dict[int, float] = field(default_factory=dict)
    _committed: dict[int, int] = field(default_factory=dict)
    _steps_back: list[str] = field(default_factory=list)
    _deletions: list[tuple[Mapping[int, int], Mapping[int, int]]] = field(default_factory=list)

    def enter_sent(self, number: int, position: Position, now: float) -> None:
        """Enter an event that the input topic holds; `now` is any clock, the same each time."""
        if number in self.sent:
            return
        self.sent[number] = position
        self._numbers[position.partition, position.offset] = number
        for ends, committed in self._deletions:  # It may be gone before it is heard of.
            self._strike_out(number, ends, committed)
        if number in self._first:
            self._answered(position.partition, now)
        elif number not in self.destroyed:
            self._waiting[number] = now
        for output in self._nameless.pop((position.partition, position.offset), ()):
            self.enter_output(output)

    def enter_output(self, output: Output) -> None:
        """Enter a score record or a dead letter."""
        number = output.number
        if number is None:
            number = self._numbers.get((output.partition, output.offset))
            if number is None:  # Its event's own report has yet to come.
                place = (output.partition, output.offset)
                self._nameless.setdefault(place, []).append(output)
                return
        if number in self._first:
            self._repeats.setdefault(number, []).append(output)
            return
        self._first[number] = output
        sent_at = self._waiting.pop(number, None)
        if sent_at is not None:
            self._answered(output.partition, sent_at)

    def enter_committed(self, committed: Mapping[int, int]) -> None:
        """Enter what the group has committed; it never goes back."""
        for partition, offset in committed.items():
            before = self._committed.get(partition, 0)
            if offset < before:
                self._steps_back.append(
                    f"the committed offset of partition {partition} went back from {before} to "
                    f"{offset}"
                )
            self._committed[partition] = offset

    def enter_deletion(self, ends: Mapping[int, int], committed: Mapping[int, int]) -> None:
        """Records before `ends` are gone: those not yet committed were destroyed, not lost."""
        self._deletions.append((ends, committed))
        for number in self.sent:
            self._strike_out(number, ends, committed)

    def enter_new_incarnation(self, committed: Mapping[int, int]) -> None:
        """The input topic was deleted and made again: positions begin anew."""
        everything = dict.fromkeys({place.partition for place in self.sent.values()}, 1 << 62)
        self.enter_deletion(everything, committed)
        self._deletions.clear()
        self._committed.clear()
        self._numbers.clear()
        self._answered_to.clear()

    def is_steady(self, since: float, now: float, partitions: Iterable[int], age_s: float) -> bool:
        """Say whether events sent since then are answered in every partition, and none is late."""
        oldest = next(iter(self._waiting.values()), now)
        return now - oldest < age_s and all(
            self._answered_to.get(partition, since - 1) >= since for partition in partitions
        )

    @property
    def waiting(self) -> int:
        """How many events that were sent have no output yet."""
        return len(self._waiting)

    @property
    def repeats(self) -> int:
        """How many outputs repeat another so far."""
        return sum(map(len, self._repeats.values()))

    def balance(self, committed: Mapping[int, int], ends: Mapping[int, int]) -> Balance:
        """Close the books, against what is committed at the end and where the input ends."""
        answered = self.sent.keys() & self._first.keys()
        gone = self.destroyed - answered
        lost = self.sent.keys() - answered - gone
        dead_letters = sum(self._first[number].is_dead_letter for number in answered)
        of_blow, unexplained = self._attribute()
        strangers = len(self._first.keys() - self.sent.keys()) + len(self._nameless)
        self.enter_committed(committed)
        misses = [
            *_count(len(lost), "events lost", self._some(lost)),
            *_count(strangers, "outputs of no event that was sent"),
            *_count(len(unexplained), "repeats that no fault explains", map(str, unexplained)),
            *_count(self._misplaced(answered), "outputs that name another position"),
            *_count(self._different(), "repeats with another verdict or score by the same model"),
            *_too_many(of_blow),
            *self._steps_back,
            *(
                f"partition {p} ends at {end}, and {committed.get(p, 0)} is committed"
                for p, end in sorted(ends.items())
                if committed.get(p, 0) != end
            ),
        ]
        return Balance(
            sent=len(self.sent),
            scored=len(answered) - dead_letters,
            dead_letters=dead_letters,
            destroyed=len(gone),
            repeats=self.repeats,
            repeats_by_blow=_by_name(of_blow),
            misses=tuple(misses),
        )

    def _strike_out(
        self, number: int, ends: Mapping[int, int], committed: Mapping[int, int]
    ) -> None:
        partition, offset, _ = self.sent[number]
        if offset >= ends.get(partition, 0):
            return
        self.deleted.add(number)
        if offset >= committed.get(partition, 0):
            self.destroyed.add(number)
            self._waiting.pop(number, None)

    def _answered(self, partition: int, sent_at: float) -> None:
        self._answered_to[partition] = max(self._answered_to.get(partition, sent_at), sent_at)

    def _attribute(self) -> tuple[list[tuple[Blow, Counter[int]]], list[Repeat]]:
        """Count repeats by the latest blow that explains each, and by partition; return those
        that none does."""
        blows = sorted(self.blows, key=lambda blow: blow.began_ms)
        begins = [blow.began_ms - CLOCK_SLACK_MS for blow in blows]
        of_blow: list[tuple[Blow, Counter[int]]] = [(blow, Counter()) for blow in blows]
        unexplained: list[Repeat] = []
        for number, outputs in self._repeats.items():
            position = self.sent.get(number)
            if position is None:
                continue  # A stranger, counted as such.
            first_ms = self._first[number].written_ms
            for output in outputs:
                late = bisect_right(begins, max(first_ms, output.written_ms))
                for place in reversed(range(late)):
                    if blows[place].explains(position, first_ms, output.written_ms):
                        of_blow[place][1][position.partition] += 1
                        break
                else:
                    unexplained.append(Repeat(position, first_ms, output.written_ms))
        if self.exactly_once:  # Nothing may be repeated, whatever happened.
            unexplained = [
                Repeat(self.sent[number], self._first[number].written_ms, output.written_ms)
                for number, outputs in self._repeats.items()
                if number in self.sent
                for output in outputs
            ]
        return of_blow, unexplained

    def _misplaced(self, numbers: Iterable[int]) -> int:
        return sum(
            (output.partition, output.offset) != self.sent[number][:2]
            for number in numbers
            for output in (self._first[number], *self._repeats.get(number, ()))
        )

    def _different(self) -> int:
        return sum(
            output.model == self._first[number].model and not _same(output, self._first[number])
            for number, outputs in self._repeats.items()
            for output in outputs
        )

    def _some(self, numbers: Iterable[int]) -> list[str]:
        places = sorted((self.sent[number], number) for number in numbers)
        return [f"{p.partition}@{p.offset} (event {number})" for p, number in places]


def _by_name(of_blow: Iterable[tuple[Blow, Counter[int]]]) -> dict[str, tuple[int, int]]:
    by_name: dict[str, tuple[int, int]] = {}
    for blow, repeats in of_blow:
        if repeats:
            total, most = by_name.get(blow.name, (0, 0))
            most = max(most, *repeats.values())
            by_name[blow.name] = (total + repeats.total(), most)
    return by_name


def _too_many(of_blow: Iterable[tuple[Blow, Counter[int]]]) -> list[str]:
    return [
        f"{blow.name} repeated {count} events of partition {partition}; a turn has "
        f"{blow.repeats_max} at most"
        for blow, repeats in of_blow
        for partition, count in repeats.items()
        if blow.repeats_max is not None and count > blow.repeats_max
    ]


SCORE_TOLERANCE = 1e-5  # What the contract of the tests' model promises, relative.


def _same(one: Output, other: Output) -> bool:
    if one.score is None or other.score is None:
        return one.outcome == other.outcome and one.score is other.score
    near = abs(one.score - other.score) <= SCORE_TOLERANCE * max(abs(one.score), 1.0)
    return one.outcome == other.outcome and near


def _count(count: int, of_what: str, examples: Iterable[str] = ()) -> list[str]:
    if not count:
        return []
    shown = [example for _, example in zip(range(5), examples, strict=False)]
    return [f"{count:,} {of_what}{': ' + ', '.join(shown) if shown else ''}"]
