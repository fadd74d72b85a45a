"""Which partitions are ours, under which number, and how far each has come. Pure.

Every assignment of a partition gets a number, and so does every rewind: records read under an
older number are dropped, never written or committed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from worker.turn import Turn


class Assignments:
    """The partitions of one member. One whose start is not known yet has no number."""

    def __init__(self) -> None:
        self.owned: set[int] = set()
        self.fetched: set[int] = set()  # Those that the client has been told to fetch.
        self.numbers: dict[int, int] = {}
        self.done: dict[int, int] = {}  # Where a rewind goes: behind the last turn that is done.
        self.positions: dict[int, int] = {}  # The offset after the last record read.
        self.given_up: set[int] = set()  # Gone, or renumbered, during the read in hand.
        self._next_number = 1

    def assign(self, partitions: Iterable[int]) -> None:
        """Take partitions whose starts are not known yet."""
        self.owned |= set(partitions)

    def begin(self, partition: int, offset: int) -> None:
        """A partition begins here: a new number, and nothing done yet."""
        self._renumber(partition)
        self.fetched.add(partition)
        self.done[partition] = self.positions[partition] = offset

    def move(self, partition: int, offset: int) -> None:
        """A partition goes on elsewhere, behind a gap; what was read of it still counts."""
        self.positions[partition] = offset

    def rewind(self) -> None:
        """Begin everything again behind what is done."""
        for partition in self.numbers:
            self._renumber(partition)
        self.given_up |= self.numbers.keys()
        self.positions.update(self.done)

    def unplace(self, partitions: Iterable[int]) -> None:
        """These are ours and must be placed anew: nothing read of them counts any more."""
        for partition in partitions:
            for places in (self.numbers, self.done, self.positions):
                places.pop(partition, None)
            self.given_up.add(partition)

    def give_up(self, partitions: Iterable[int]) -> None:
        """These are no longer ours."""
        gone = set(partitions)
        self.unplace(gone)
        self.owned -= gone
        self.fetched -= gone

    def read(self, ends: Mapping[int, int]) -> dict[int, int]:
        """Records up to `ends` are in hand; return the numbers under which they were read."""
        self.positions.update(ends)
        return {partition: self.numbers[partition] for partition in ends}

    def finish(self, turn: Turn) -> dict[int, int]:
        """A turn is done; return its offsets, of partitions that are still ours by its numbers."""
        offsets = turn.restricted_to(self.numbers).offsets
        self.done.update(offsets)
        return offsets

    def _renumber(self, partition: int) -> None:
        self.numbers[partition] = self._next_number
        self._next_number += 1
