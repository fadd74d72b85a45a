"""What was measured, and the ratios that follow from it.

A ratio is the median over the repeats of the ratio within each repeat, whose runs are neighbours
in time, as near as the alternating order lets them; lowest and highest stand beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, field
from statistics import median

from bench.contender import Spent
from bench.contenders.entries import BY_KEY, ENTRIES, Entry
from bench.latency import Latency, Quantiles

WORKER, TEXTBOOK, RAW, RAW_PACKED = "worker", "textbook", "raw", "raw-packed"
# What the ratios below the table are of; the best framework that commits is added.
COMPARED = (
    (WORKER, TEXTBOOK),
    (WORKER, "hand-batch"),
    ("pure", TEXTBOOK),
    (WORKER, RAW),
    ("packed", RAW_PACKED),
    ("exactly-once", WORKER),
    ("traced", WORKER),
    ("default-model", WORKER),
    ("default-heavy", WORKER),
)


@dataclass(frozen=True)
class Run:
    """One contender, once through its topic."""

    contender: str
    repeat: int
    events: int
    events_per_s: float
    cpu_us_per_event: float
    peak_mib: float
    spent: Spent
    stages_us_per_event: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Spread:
    """The median of a figure over the repeats, its lowest and its highest."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(median(values), min(values), max(values))

    def text(self, form: str) -> str:
        return f"{self.median:{form}} ({self.lowest:{form}}-{self.highest:{form}})"


@dataclass
class Findings:
    """All that was measured, and who failed and why; filled as the runs end."""

    events: int
    repeats: int
    runs: list[Run] = field(default_factory=list)
    latencies: list[Latency] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    environments: dict[str, list[str]] = field(default_factory=dict)

    def of(self, key: str) -> list[Run]:
        return [run for run in self.runs if run.contender == key]

    def rates(self, key: str) -> Spread:
        return Spread.of([run.events_per_s for run in self.of(key)])

    def costs(self, key: str) -> Spread:
        return Spread.of([run.cpu_us_per_event for run in self.of(key)])

    def by_rate(self, above: str, below: str) -> Spread | None:
        """Return how many times the events per second of `below` `above` makes."""
        return self._ratio(above, below, lambda run: run.events_per_s)

    def by_cost(self, above: str, below: str) -> Spread | None:
        """Return the same by events per CPU second."""
        return self._ratio(above, below, lambda run: 1 / run.cpu_us_per_event)

    def latencies_of(self, key: str) -> list[Latency]:
        return [latency for latency in self.latencies if latency.contender == key]

    def latency(self, key: str) -> Quantiles | None:
        """Return the medians of a contender's quantiles; None if it has not run."""
        read = [one.read_ms for one in self.latencies_of(key)]
        return Quantiles(*map(median, zip(*map(astuple, read), strict=True))) if read else None

    def by_latency(
        self, above: str, below: str, what: Callable[[Quantiles], float]
    ) -> Spread | None:
        """Return how many times the latency of `below` `above` has."""
        others = {one.repeat: one for one in self.latencies_of(below)}
        pairs = [(a, others[a.repeat]) for a in self.latencies_of(above) if a.repeat in others]
        return Spread.of([what(a.read_ms) / what(b.read_ms) for a, b in pairs]) if pairs else None

    def ahead(self, what: Callable[[Quantiles], float]) -> list[str]:
        """Return the contenders whose latency is lower than the worker's, by the medians."""
        scoring = {e.key: self.latency(e.key) for e in ENTRIES if e.scores}
        limit = what(ours) if (ours := scoring[WORKER]) else 0.0
        peers = [key for key in scoring if not BY_KEY[key].ours]
        return [key for key in peers if (one := scoring[key]) and what(one) < limit]

    def best_framework(self) -> str | None:
        """Return the fastest framework that commits offsets, of those that ran."""
        ran = {run.contender for run in self.runs}
        able = [e.key for e in ENTRIES if e.framework and e.commits and e.key in ran]
        return max(able, key=lambda key: self.rates(key).median, default=None)

    def compared(self) -> list[tuple[str, str]]:
        """Return the pairs to compare, of those that ran."""
        best = self.best_framework()
        pairs = (*COMPARED, *([(WORKER, best), ("pure", best)] if best else []))
        return [pair for pair in pairs if self.by_rate(*pair)]

    def ratios(self) -> list[tuple[str, str]]:
        """Return the pairs of which ratios are kept: all with textbook and raw, and `compared`."""
        ran = [entry for entry in ENTRIES if self.of(entry.key)]
        pairs = [(e.key, below) for e in ran for below in (TEXTBOOK, raw_of(e)) if e.key != below]
        known = [pair for pair in pairs if self.by_rate(*pair)]
        return list(dict.fromkeys([*known, *self.compared()]))

    def stages(self) -> dict[str, float]:
        known = [costs for run in self.of(WORKER) if (costs := run.stages_us_per_event)]
        return {s: median(costs[s] for costs in known) for s in (known[0] if known else ())}

    def _ratio(self, above: str, below: str, what: Callable[[Run], float]) -> Spread | None:
        others = {run.repeat: run for run in self.of(below)}
        pairs = [(run, others[run.repeat]) for run in self.of(above) if run.repeat in others]
        return Spread.of([what(a) / what(b) for a, b in pairs]) if pairs else None


def raw_of(entry: Entry) -> str:
    """Return the raw forward of the bytes that a contender reads."""
    return RAW_PACKED if entry.kind == "packed" else RAW
