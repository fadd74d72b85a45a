"""A source that ends: of its topic, only what was there at the start. Pure of Kafka.

What is written while we read, our own dead letters among it, is neither handed out nor passed by a
commit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from worker.service import Source
from worker.turn import Turn


class FiniteSource:
    """`worker.service.Source`, up to the ends that its partitions had."""

    def __init__(
        self,
        source: Source,
        ends: Mapping[int, int],
        reached: Callable[[], bool],
        on_end: Callable[[], None],
    ) -> None:
        """`reached` says whether the group has done all that lies before the ends, whoever did
        it; it is asked when nothing is waiting, and `on_end` is called once it has."""
        self._source = source
        self._ends = ends
        self._reached = reached
        self._on_end = on_end
        self.ended = False
        self.start = source.start
        self.keep_alive = source.keep_alive
        self.still_owned = source.still_owned
        self.rewind = source.rewind
        self.close = source.close

    def read(self, wait_s: float) -> Turn | None:
        turn = self._source.read(wait_s)
        if turn is not None:
            turn = self._before_the_ends(turn)
        if turn is None and self._reached():
            self.ended = True
            self._on_end()
        return turn

    def _before_the_ends(self, turn: Turn) -> Turn | None:
        """Return what of a turn counts; itself, if all does."""
        ends = self._ends
        if all(offset <= ends.get(partition, 0) for partition, offset in turn.offsets.items()):
            return turn
        records = turn.records
        places = zip(records.partitions, records.offsets, strict=True)
        kept = records.rows([row for row, (p, o) in enumerate(places) if o < ends.get(p, 0)])
        if not kept:
            return None
        # A partition of which nothing counts may be committed further than our ends already.
        partitions = set(kept.partitions)
        offsets = {p: min(o, ends[p]) for p, o in turn.offsets.items() if p in partitions}
        return Turn(kept, offsets, {p: turn.assignments[p] for p in partitions})
