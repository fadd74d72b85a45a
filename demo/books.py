"""Keeps the books: what came out, against what was sent. Pure."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

import numpy as np

from demo.events import kind_of
from schemas.dead_letter import DeadLetter
from schemas.score import Score

Position = tuple[int, int]
LATEST = 6
LATENCIES_KEPT = 5000


@dataclass
class Books:
    """Every output, by the source position that it names."""

    verdicts: dict[Position, str] = field(default_factory=dict)  # Dead letters: their reason.
    dead_letters: Counter[str] = field(default_factory=Counter)
    repeats: int = 0
    flagged: int = 0
    latest_flagged: deque[Score] = field(default_factory=lambda: deque(maxlen=LATEST))
    latest_dead_letters: deque[DeadLetter] = field(default_factory=lambda: deque(maxlen=3))
    latencies_ms: deque[float] = field(default_factory=lambda: deque(maxlen=LATENCIES_KEPT))

    def score(self, score: Score, now_ms: float) -> None:
        """Enter a score record."""
        if self._is_repeat((score.source.partition, score.source.offset), score.verdict):
            return
        self.latencies_ms.append(now_ms - score.timestamp)
        if score.verdict == "anomalous":
            self.flagged += 1
            self.latest_flagged.append(score)

    def dead_letter(self, letter: DeadLetter) -> None:
        """Enter a dead letter."""
        if not self._is_repeat((letter.source_partition, letter.source_offset), letter.reason):
            self.dead_letters[letter.reason] += 1
            self.latest_dead_letters.append(letter)

    def latency_ms(self) -> tuple[float, float]:
        """Return the median and the 99th percentile of the latest latencies."""
        if not self.latencies_ms:
            return (float("nan"), float("nan"))
        median, high = np.percentile(list(self.latencies_ms), [50, 99])
        return float(median), float(high)

    def missing(self, sent: dict[Position, str]) -> set[Position]:
        """Return the source positions that were sent and have no output."""
        return sent.keys() - self.verdicts.keys()

    def flagged_by_kind(self, sent: dict[Position, str]) -> dict[str, tuple[int, int]]:
        """Return, by kind, how many different events were flagged, and of how many.

        An event that was played several times counts once: repetition adds no knowledge.
        """
        flagged = {
            name for position, name in sent.items() if self.verdicts.get(position) == "anomalous"
        }
        totals = Counter(kind_of(name) for name in set(sent.values()))
        flags = Counter(kind_of(name) for name in flagged)
        return {kind: (flags[kind], total) for kind, total in totals.items()}

    def _is_repeat(self, position: Position, outcome: str) -> bool:
        if position in self.verdicts:
            self.repeats += 1
            return True
        self.verdicts[position] = outcome
        return False
