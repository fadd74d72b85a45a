"""How a metric is declared: once, with its sentence, its unit and labels of bounded sets.

A declaration makes the client library's objects, with every series of a closed label there from
the start: one that appears with its first event has no increase to alert on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import product
from typing import Literal, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from worker.batch_histogram import BatchHistogram

Kind = Literal["counter", "gauge", "histogram"]


class Label(NamedTuple):
    """A label: of a closed set of `values`, or of values that something else bounds."""

    name: str
    values: tuple[str, ...] = ()
    bound: str = ""  # What bounds the values, and what they are, where the set is not closed.


class Metric(NamedTuple):
    """One metric. `name` is the family's: a counter's series are called `<name>_total`."""

    kind: Kind
    name: str
    sentence: str
    unit: str
    labels: tuple[Label, ...] = ()
    bounds: tuple[float, ...] = ()  # The upper bounds of a histogram's buckets.

    @property
    def scraped_name(self) -> str:
        """The name to ask Prometheus for; a histogram's has `_bucket`, `_sum`, `_count` behind."""
        return f"{self.name}_total" if self.kind == "counter" else self.name

    @property
    def label_names(self) -> list[str]:
        return [label.name for label in self.labels]

    def counter(self, registry: CollectorRegistry) -> Counter:
        counter = Counter(self.name, self.sentence, self.label_names, registry=registry)
        for values in self._closed_values():
            counter.labels(*values)
        return counter

    def gauge(self, registry: CollectorRegistry) -> Gauge:
        gauge = Gauge(self.name, self.sentence, self.label_names, registry=registry)
        for values in self._closed_values():
            gauge.labels(*values)
        return gauge

    def histogram(self, registry: CollectorRegistry) -> BatchHistogram:
        label = (self.labels[0].name, self.labels[0].values) if self.labels else None
        return BatchHistogram(self.name, self.sentence, self.bounds, registry, label)

    def family(self) -> CounterMetricFamily | GaugeMetricFamily:
        """Return an empty family, for what is asked for at each scrape."""
        kind = CounterMetricFamily if self.kind == "counter" else GaugeMetricFamily
        return kind(self.name, self.sentence, labels=self.label_names)

    def _closed_values(self) -> list[tuple[str, ...]]:
        if not self.labels or not all(label.values for label in self.labels):
            return []
        return list(product(*(label.values for label in self.labels)))


class Series(NamedTuple):
    """One series of a metric, now."""

    metric: Metric
    value: float
    labels: Sequence[str] = ()


class Asked(Collector):
    """Metrics that are asked for at each scrape, and so are of one moment."""

    def __init__(
        self,
        registry: CollectorRegistry,
        metrics: Sequence[Metric],
        ask: Callable[[], Iterable[Series]],
    ) -> None:
        """Have `ask` called, from the scrape's thread, for the series of these `metrics`."""
        self._metrics = metrics
        self._ask = ask
        registry.register(self)

    def describe(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        return (metric.family() for metric in self._metrics)

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        families = {metric.name: metric.family() for metric in self._metrics}
        for metric, value, labels in self._ask():
            families[metric.name].add_metric(list(labels), value)
        yield from families.values()
