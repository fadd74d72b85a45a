"""What the ledger's entries are: positions, outputs, blows, and the balance at the end. Pure.

Times are epoch milliseconds, as Kafka stamps its records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

CLOCK_SLACK_MS = 250  # A record is stamped when it is handed over, a blow just before it falls.


class Position(NamedTuple):
    """A place in the input. A topic that is deleted and made again has a new incarnation."""

    partition: int
    offset: int
    incarnation: int = 0


class Output(NamedTuple):
    """A score record or a dead letter, as a reader finds it.

    `number` is None where the output is too small to carry it; its position must do then.
    """

    number: int | None
    partition: int
    offset: int
    outcome: str  # A verdict, or the reason of a dead letter.
    score: float | None
    model: str
    is_dead_letter: bool
    written_ms: int


@dataclass(frozen=True)
class Blow:
    """A fault that was dealt. `committed` is what the group had committed when it fell."""

    name: str
    began_ms: int
    over_ms: int  # When the flow was steady again.
    committed: Mapping[int, int]
    interrupts: bool
    repeats_max: int | None = None  # In one partition: what one turn holds; None: no bound.

    def explains(self, position: Position, first_ms: int, again_ms: int) -> bool:
        """Say whether this output may have been written twice because of this fault."""
        early, late = sorted((first_ms, again_ms))
        return (
            self.interrupts
            and early <= self.over_ms + CLOCK_SLACK_MS
            and self.began_ms - CLOCK_SLACK_MS <= late <= self.over_ms + CLOCK_SLACK_MS
            and position.offset >= self.committed.get(position.partition, 0)
        )


class Repeat(NamedTuple):
    """An event that was answered again."""

    position: Position
    first_ms: int
    again_ms: int


@dataclass(frozen=True)
class Balance:
    """How the books stand. `misses` are sentences, and none may be there."""

    sent: int
    scored: int
    dead_letters: int
    destroyed: int
    repeats: int
    # By fault: in total, and the most that one fault caused in one partition.
    repeats_by_blow: Mapping[str, tuple[int, int]]
    misses: tuple[str, ...]

    @property
    def is_clean(self) -> bool:
        return not self.misses

    def with_misses(self, misses: Sequence[str]) -> Balance:
        """Return the same balance with more misses, found beside the books."""
        return replace(self, misses=(*self.misses, *misses))

    def lines(self) -> list[str]:
        """Return the balance as a person reads it."""
        answered = self.scored + self.dead_letters
        return [
            f"sent          {self.sent:>10,}",
            f"  scores      {self.scored:>10,}",
            f"  dead letters{self.dead_letters:>10,}",
            f"destroyed     {self.destroyed:>10,}   by deletion, before they were read",
            f"lost          {self.sent - answered - self.destroyed:>10,}",
            f"repeated      {self.repeats:>10,}",
            *(f"MISS: {miss}" for miss in self.misses),
            *([] if self.misses else ["The books balance."]),
        ]
