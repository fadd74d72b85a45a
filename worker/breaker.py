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
    ones came in a row; counted by whole turns, each once: when it is done."""

    def __init__(self, ratio: float) -> None:
        self._ratio = ratio
        # Of each turn in the window: its records, its bad ones. Their sums are kept, because a
        # quiet topic has a thousand turns in its window, and each turn is judged.
        self._turns: deque[tuple[int, int]] = deque()
        self._seen = self._bad = 0
        self._in_a_row = 0  # Records at the end, in turns that were wholly bad.

    def opens_at(self, tally: Tally) -> str | None:
        """Return why the breaker would open at this turn, or None."""
        records, bad_records = _counts(tally)
        seen, bad = self._seen + records, self._bad + bad_records
        for old_records, old_bad in self._turns:
            if seen - old_records < WINDOW_RECORDS:
                break
            seen, bad = seen - old_records, bad - old_bad
        in_a_row = self._in_a_row + records if bad_records == records else 0
        if seen >= RECORDS_MIN and bad >= self._ratio * seen:
            what = f"{bad} of the latest {seen} records"
        elif in_a_row >= IN_A_ROW:
            what = f"the latest {in_a_row} records"
        else:
            return None
        commonest = max(tally.reasons, key=tally.reasons.__getitem__, default="unscorable")
        return f"{what} cannot be scored, most of the last turn for '{commonest}'"

    def count(self, tally: Tally) -> None:
        """Take a turn into account that is done."""
        records, bad = counts = _counts(tally)
        self._turns.append(counts)
        self._seen, self._bad = self._seen + records, self._bad + bad
        self._in_a_row = self._in_a_row + records if bad == records else 0
        # The latest turns, as few as it takes to have the window's records.
        while self._seen - self._turns[0][0] >= WINDOW_RECORDS:
            records, bad = self._turns.popleft()
            self._seen, self._bad = self._seen - records, self._bad - bad

    def forget(self) -> None:
        """Judge anew, from the next turn on."""
        self._turns.clear()
        self._seen = self._bad = self._in_a_row = 0


def _counts(tally: Tally) -> tuple[int, int]:
    bad = tally.outcomes.get("dead_letter", 0) + tally.outcomes.get("unscorable", 0)
    return sum(tally.outcomes.values()), bad
