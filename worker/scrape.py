"""One worker's `/metrics` at one moment, and what lies between two such moments."""

from __future__ import annotations

import http.client
import math
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

TIMEOUT_S = 2.0
Labels = Mapping[str, str]
# Workers are near; a proxy that the environment names for the world outside may not reach them.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Scrape:
    """The samples of a scrape by name; `at` is monotonic seconds."""

    at: float
    samples: Mapping[str, list[tuple[Labels, float]]] = field(default_factory=dict)

    @classmethod
    def of(cls, text: str, at: float) -> Scrape:
        """Read Prometheus' text format.

        Raises:
            ValueError: it is not that.
        """
        samples: dict[str, list[tuple[Labels, float]]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                samples.setdefault(sample.name, []).append((sample.labels, sample.value))
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

    @property
    def started_at(self) -> float | None:
        """When the process began, epoch seconds."""
        return self.value("process_start_time_seconds")


def scrape(url: str) -> Scrape:
    """Ask a worker for its metrics.

    Raises:
        OSError, ValueError: it does not answer, or not with metrics.
    """
    try:
        # Only http and https: `top` looked at the scheme.
        with _DIRECT.open(url, timeout=TIMEOUT_S) as answer:
            text = answer.read().decode()
    except urllib.error.HTTPError as error:
        raise OSError(f"it answers {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        raise OSError(str(error.reason)) from None
    except http.client.HTTPException as error:
        raise OSError(f"it does not speak HTTP: {error!r}") from None
    return Scrape.of(text, time.monotonic())


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
        values = {labels[label] for labels, _ in self.after.series(name)}
        grown = {value: self.increase(name, **{label: value}) for value in values}
        return {value: by for value, by in grown.items() if by > 0}

    def quantile(self, name: str, q: float) -> float | None:
        """Return about which value a share q lies below, by a histogram's buckets.

        Within a bucket values are taken to lie evenly, as PromQL's `histogram_quantile` does; above
        the last bound it is that bound. None: nothing was counted.
        """
        texts = {labels["le"] for labels, _ in self.after.series(f"{name}_bucket")}
        counts = {float(le): self.increase(f"{name}_bucket", le=le) for le in texts}
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
