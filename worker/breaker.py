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
        self._window: deque[tuple[int, int]] = deque()  # Of each turn: its records, its bad ones.

    def opens_at(self, tally: Tally) -> str | None:
        """Return why the breaker would open at this turn, or None."""
        window = _latest([*self._window, _counts(tally)])
        seen, bad = (sum(column) for column in zip(*window, strict=True))
        in_a_row = 0
        for records, of_them_bad in reversed(window):
            if of_them_bad < records:
                break
            in_a_row += records
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
        self._window = deque(_latest([*self._window, _counts(tally)]))

    def forget(self) -> None:
        """Judge anew, from the next turn on."""
        self._window.clear()


def _counts(tally: Tally) -> tuple[int, int]:
    bad = tally.outcomes.get("dead_letter", 0) + tally.outcomes.get("unscorable", 0)
    return sum(tally.outcomes.values()), bad


def _latest(turns: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the latest turns, as many as it takes to have the window's records."""
    seen = 0
    for place in range(len(turns) - 1, -1, -1):
        seen += turns[place][0]
        if seen >= WINDOW_RECORDS:
            return turns[place:]
    return turns
