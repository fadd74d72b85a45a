"""What the worker counts. Every metric is declared in `worker.declared`, with its sentence.

Whole batches are counted at once (`worker.batch_histogram`), and what costs more than a few
nanoseconds an event is counted of a sample (`worker.drift`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version

import numpy as np
from prometheus_client import (
    CollectorRegistry,
    Counter,
    ProcessCollector,
    disable_created_metrics,
)

from worker import declared_kafka as kafka
from worker import declared_turns as turns
from worker.drift import Drift
from worker.health import Health
from worker.librdkafka_metrics import LibrdkafkaMetrics
from worker.metric import Asked, Series
from worker.model import Model
from worker.model_metrics import ModelMetrics
from worker.stage_times import StageTimes
from worker.turn import Released, Tally

DRIFT_WINDOW_S = 900.0


class Metrics:
    """The worker's metrics, in a registry of their own."""

    def __init__(self, drift_window_s: float = DRIFT_WINDOW_S) -> None:
        # A second series for each counter, which nothing of ours reads.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._records = turns.RECORDS.counter(registry)
        self._outcomes: dict[str, Counter] = {}  # To look a label up costs more than to count.
        self._dead_letters = turns.DEAD_LETTERS.counter(registry)
        self._ungrouped = turns.UNGROUPED.counter(registry)
        self._truncated = turns.TRUNCATED.counter(registry)
        self._gaps = turns.GAPS.counter(registry)
        self._lost_records = turns.LOST_RECORDS.counter(registry)
        self.stage = StageTimes(registry).stage
        self._batch_records = turns.BATCH.histogram(registry)
        acknowledged = turns.TURNS.counter(registry)
        self._turns = {released: acknowledged.labels(released) for released in Released}
        self._undone = turns.TURNS_UNDONE.counter(registry)
        self._last_turn = turns.LAST_TURN.gauge(registry)
        self._last_event = turns.LAST_EVENT.gauge(registry)
        for last in (self._last_turn, self._last_event):
            last.set_to_current_time()  # Nothing for an hour is told an hour after the start.
        self._latency = turns.LATENCY.histogram(registry)
        self._age_at_read = turns.AGE_AT_READ.histogram(registry)
        self._in_worker = turns.IN_WORKER.histogram(registry)
        self._record_wait = turns.RECORD_WAIT.histogram(registry)
        self._ahead = turns.AHEAD.counter(registry)
        self._records_ahead = turns.RECORDS_AHEAD.counter(registry)
        kafka.BUILD_INFO.gauge(registry).labels(_version()).set(1)
        self._held = kafka.HELD.gauge(registry)
        self._commits = kafka.COMMITS.counter(registry)
        self._rebalances = kafka.REBALANCES.counter(registry)
        self._produce_errors = kafka.PRODUCE_ERRORS.counter(registry)
        self.librdkafka = LibrdkafkaMetrics(registry)
        self._model = ModelMetrics(registry)
        self._drift = Drift(registry, drift_window_s)

    def acknowledged(
        self, tally: Tally, *, read_at: float, now: float, released: Released = Released.DRAINED
    ) -> None:
        """Count a turn whose outputs the broker has.

        `read_at` and `now` are epoch seconds, `now` later by what a monotonic clock measured.
        """
        for outcome, records in tally.outcomes.items():
            if outcome not in self._outcomes:
                self._outcomes[outcome] = self._records.labels(outcome)
            if records:
                self._outcomes[outcome].inc(records)
        for reason, records in tally.reasons.items():
            self._dead_letters.labels(reason).inc(records)
        if tally.ungrouped:
            self._ungrouped.inc(tally.ungrouped)
        self._turns[released].inc()
        self._batch_records.observe(sum(tally.outcomes.values()))
        self._model.judged(tally)
        self._count_latencies(tally, read_at, now)
        if tally.sample is not None:
            self._drift.add(tally.sample, now)
        self._last_turn.set(now)

    def undone(self) -> None:
        """Count a turn that is read again."""
        self._undone.inc()

    def rebalanced(self, kind: str) -> None:
        self._rebalances.labels(kind).inc()

    def committed(self, outcome: str) -> None:
        self._commits.labels(outcome).inc()

    def not_taken(self, error_name: str) -> None:
        """Count an output that was not taken, by Kafka's name of the error."""
        self._produce_errors.labels(error_name).inc()

    def held(self, hold: str, *, held: bool) -> None:
        self._held.labels(hold).set(held)

    def gap(self, lost_records: int) -> None:
        self._gaps.inc()
        self._lost_records.inc(lost_records)

    def truncated(self, outputs: int) -> None:
        self._truncated.inc(outputs)

    def model_load(self, outcome: str, current: Model, now: float) -> None:
        """Count a load, and say which model is current after it; `now` is epoch seconds."""
        self._model.load(outcome, current, now)
        if outcome == "accepted":
            self._drift.begin(current.contract, current.digest)

    def scores_with(self, current: Model) -> None:
        """Say which model scores, and where: when it is loaded, and when its GPU fails."""
        self._model.scores_with(current)

    def watch_partitions(
        self, lags: Callable[[], Mapping[int, int]], positions: Callable[[], Mapping[int, int]]
    ) -> None:
        """Report, at each scrape, where we are in each of our partitions, and how many records
        behind, where that is known."""

        def ask() -> Iterator[Series]:
            at = positions()
            for partition, position in at.items():
                yield Series(kafka.POSITION, position, (str(partition),))
            for partition, lag in lags().items():
                yield Series(kafka.LAG, lag, (str(partition),))
            yield Series(kafka.ASSIGNED, len(at))

        Asked(self.registry, (kafka.LAG, kafka.POSITION, kafka.ASSIGNED), ask)

    def watch_health(self, health: Health, monotonic: Callable[[], float]) -> None:
        """Report, at each scrape, what the probes would be answered."""

        def ask() -> Iterator[Series]:
            now = monotonic()
            yield Series(kafka.READY, health.why_not_ready(now) is None)
            yield Series(kafka.ALIVE, health.why_not_alive(now) is None)
            yield Series(turns.LAST_BEAT, time.time() - (now - health.last_beat))

        Asked(self.registry, (kafka.READY, kafka.ALIVE, turns.LAST_BEAT), ask)

    def _count_latencies(self, tally: Tally, read_at: float, now: float) -> None:
        """Count latencies; those that a wrong clock makes negative are counted apart."""
        # As integers first: half as long as to floating point at once.
        times_ms = np.fromiter(tally.timestamps_ms, np.int64, len(tally.timestamps_ms))
        ages = read_at - times_ms / 1000
        if len(ages):
            self._in_worker.observe_times(now - read_at, len(ages))
            least = float(ages.min())
            self._last_event.set(read_at - max(0.0, least))
            if least < 0:
                self._ahead.inc(int(np.count_nonzero(ages < 0)))
                ages = ages[ages >= 0]
            self._age_at_read.observe_all(ages)
            self._latency.observe_all(ages + (now - read_at))
        if tally.sample is not None:
            waits = read_at - np.asarray(tally.sample.record_times_ms, np.float64) / 1000
            in_past = waits[waits >= 0]
            self._record_wait.observe_all(in_past)
            self._records_ahead.inc(len(waits) - len(in_past))


@cache
def _version() -> str:
    try:
        return version("odradek")
    except PackageNotFoundError:
        return "unknown"
