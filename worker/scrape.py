"""One worker's `/metrics` at one moment, and what lies between two such moments."""

from __future__ import annotations

import io
import math
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TextIO, cast

from prometheus_client.parser import text_fd_to_metric_families

from worker.fetch import fetch, late

TIMEOUT_S = 2.0
LATENCY = "odradek_event_latency_seconds"
Labels = Mapping[str, str]

_LINE_CHARS_MAX = 65_536
_VALUE_MAX = 2.0**53  # Beyond it a count of floats does not grow by 1 any more.
_STARTED = "process_start_time_seconds"
_SHARES = (
    "odradek_target_flag_rate",
    "odradek_expected_flag_rate",
    "odradek_expected_flag_rate_stddev",
)
# The labels that `top` reads. Others may come and go with a worker's version.
_LABELS = {
    "odradek_held": ("hold",),
    "odradek_model_info": ("name", "version", "digest", "provider"),
    "odradek_lag_records": ("partition",),
    "odradek_turn_stage_seconds_sum": ("stage",),
    "odradek_turn_stage_seconds_count": ("stage",),
    "odradek_dead_letters_total": ("reason",),
    "odradek_flagged_events_total": ("feature",),
    "odradek_feature_drift_psi": ("feature",),
    f"{LATENCY}_bucket": ("le",),
}


@dataclass(frozen=True)
class Scrape:
    """The samples of a scrape by name; `at` is monotonic seconds."""

    at: float
    samples: Mapping[str, list[tuple[Labels, float]]] = field(default_factory=dict)

    @classmethod
    def of(cls, lines: Iterable[str], at: float) -> Scrape:
        """Read Prometheus' text format.

        Raises:
            ValueError: it is not that.
            OSError: what reading the lines raises.
        """
        samples: dict[str, list[tuple[Labels, float]]] = {}
        try:
            # The parser only iterates; it calls that a file.
            for family in text_fd_to_metric_families(cast(TextIO, lines)):
                for sample in family.samples:
                    known = samples.setdefault(sample.name, [])
                    known.append((sample.labels, float(sample.value)))
        except OSError:
            raise
        except Exception as error:  # noqa: BLE001  # The parser raises what comes, IndexError too.
            raise ValueError(f"it does not answer with metrics: {error!r}") from None
        return cls(at, samples)

    def value(self, name: str, **labels: str) -> float | None:
        """Return the sum of the series that have these labels; None if there are none."""
        values = [value for _, value in self.series(name, **labels)]
        return math.fsum(values) if values else None

    def series(self, name: str, **labels: str) -> Iterator[tuple[Labels, float]]:
        """Yield the series of a name that have these labels."""
        for found, value in self.samples.get(name, ()):
            if labels.items() <= found.items():
                yield found, value

    def by(self, name: str, label: str) -> Mapping[str, float]:
        """Return the sums of the series of a name that have the same value of a label."""
        sums: dict[str, float] = defaultdict(float)
        for labels, value in self.series(name):
            sums[labels[label]] += value
        return sums

    @property
    def started_at(self) -> float | None:
        """When the process began, epoch seconds."""
        return self.value(_STARTED)


def scrape(url: str) -> Scrape:
    """Ask a worker for its metrics, for `TIMEOUT_S` at most.

    Raises:
        OSError, ValueError: it does not answer, or not with a worker's metrics.
    """
    deadline = time.monotonic() + TIMEOUT_S
    text = fetch(url, TIMEOUT_S)
    found = Scrape.of(_lines(text, deadline), time.monotonic())
    check(found)
    return found


def _lines(text: str, deadline: float) -> Iterator[str]:
    """Yield lines until the deadline: to read a page of many MiB takes many seconds."""
    for line in io.StringIO(text):  # By "\n" only: a name may have other ends of lines.
        if time.monotonic() > deadline:
            raise TimeoutError(f"{late(TIMEOUT_S)} that could be read in it")
        if len(line) > _LINE_CHARS_MAX:
            raise ValueError(f"a line has {len(line)} characters")
        yield line


def check(page: Scrape) -> None:
    """Check that a page is a worker's, and that all that is shown of it can be.

    Raises:
        ValueError: it is not.
    """
    if "odradek_ready" not in page.samples:
        raise ValueError("it answers, but not with a worker's metrics: odradek_ready is not there")
    for name, series in page.samples.items():
        for labels, value in series:
            if name.startswith(("odradek_", _STARTED)) and not abs(value) <= _VALUE_MAX:
                raise ValueError(f"{name} is {value:g}; wanted a number below 2^53")
            for label in _LABELS.get(name, ()):
                if label not in labels:
                    raise ValueError(f"{name} has no label {label!r}")
    for name in _SHARES:
        if (share := page.value(name)) is not None and not 0 <= share <= 1:
            raise ValueError(f"{name} is {share:g}; wanted 0 to 1")
    for bound in page.by(f"{LATENCY}_bucket", "le"):
        try:
            float(bound)
        except ValueError:
            raise ValueError(f"{LATENCY} has a bucket le={bound!r}; wanted a number") from None


@dataclass(frozen=True)
class Between:
    """What a worker did from one scrape to a later one.

    A worker that was started anew in between has counted from 0, and did what it counted since.
    """

    before: Scrape
    after: Scrape

    @property
    def seconds(self) -> float:
        return self.after.at - self.before.at

    @property
    def restarted(self) -> bool:
        return self.before.started_at not in (None, self.after.started_at)

    def increase(self, name: str, **labels: str) -> float:
        """Return by how much counters have grown."""
        before = 0.0 if self.restarted else self.before.value(name, **labels) or 0.0
        return max(0.0, (self.after.value(name, **labels) or 0.0) - before)

    def increases(self, name: str, label: str) -> dict[str, float]:
        """Return by how much counters have grown, by a label; those that have not are left off."""
        return {value: by for value, by in self._increases(name, label).items() if by > 0}

    def _increases(self, name: str, label: str) -> dict[str, float]:
        before = {} if self.restarted else self.before.by(name, label)
        after = self.after.by(name, label)
        return {value: max(0.0, sum_ - before.get(value, 0.0)) for value, sum_ in after.items()}

    def quantile(self, name: str, q: float) -> float | None:
        """Return about which value a share q lies below, by a histogram's buckets.

        Within a bucket values are taken to lie evenly, as PromQL's `histogram_quantile` does; above
        the last bound it is that bound. None: nothing was counted.
        """
        grown = self._increases(f"{name}_bucket", "le")
        counts = {float(bound): count for bound, count in grown.items()}
        if not counts.get(math.inf):
            return None
        wanted, lower, below = q * counts[math.inf], 0.0, 0.0
        for bound, count in sorted(counts.items()):
            if count >= wanted:
                if math.isinf(bound):
                    break
                return lower + (bound - lower) * (wanted - below) / max(count - below, 1.0)
            lower, below = bound, count
        return lower
