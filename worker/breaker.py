"""The breaker: is the input itself wrong? Pure; asked of every turn before it is written.

One bad record is a dead letter. Almost nothing but bad records is a wrong deploy, a wrong topic
or the wrong model: going on would only move the topic into the dead-letter topic. An event that
is `unscorable` counts as bad here: one whose features have all been renamed is that.
"""

from __future__ import annotations

from collections import deque

from worker.turn import Tally

WINDOW_RECORDS = 1_000
RECORDS_MIN = 100
# A quiet topic fills the window with the good records of days; this many in a row are enough.
IN_A_ROW = 100


class Breaker:
    """Judges turns. Opens when a `ratio` of the latest 100 to 1,000 records is bad, or 100 bad
    ones came in a row; counted by whole turns."""

    def __init__(self, ratio: float) -> None:
        self._ratio = ratio
        self._window: deque[tuple[int, int]] = deque()  # Of each turn: its records, its bad ones.
        self._in_a_row = 0

    def opens_at(self, tally: Tally) -> str | None:
        """Take a turn into account; return why the breaker opens, or None."""
        records = sum(tally.outcomes.values())
        bad = tally.outcomes.get("dead_letter", 0) + tally.outcomes.get("unscorable", 0)
        self._window.append((records, bad))
        while self._records() - self._window[0][0] >= WINDOW_RECORDS:
            self._window.popleft()
        self._in_a_row = self._in_a_row + bad if bad == records else 0
        seen, seen_bad = self._records(), sum(bad for _, bad in self._window)
        if seen >= RECORDS_MIN and seen_bad >= self._ratio * seen:
            what = f"{seen_bad} of the latest {seen} records"
        elif self._in_a_row >= IN_A_ROW:
            what = f"the latest {self._in_a_row} records"
        else:
            return None
        self.forget()
        commonest = max(tally.reasons, key=tally.reasons.__getitem__, default="unscorable")
        return f"{what} cannot be scored, most of the last turn for '{commonest}'"

    def forget(self) -> None:
        """Judge anew, from the next turn on."""
        self._window.clear()
        self._in_a_row = 0

    def _records(self) -> int:
        return sum(records for records, _ in self._window)
