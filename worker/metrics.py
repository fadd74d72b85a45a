"""Every metric of the worker, declared once, each with one sentence.

Labels come from closed sets only. Whole batches are counted at once (`worker.batch_histogram`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from typing import get_args

import numpy as np
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from schemas.dead_letter import Reason
from schemas.score import Verdict
from worker.batch_histogram import BatchHistogram
from worker.model import Model
from worker.turn import Tally

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
STAGE_SECONDS = (0.00003, 0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10)
BATCH_RECORDS = (1, 4, 16, 64, 256, 1024, 4096, 16384)
P_VALUES = (0.0001, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, *(tenth / 10 for tenth in range(1, 10)))


class Stage(StrEnum):
    """The stages of a turn, in their order."""

    READ = "read"
    DECODE = "decode"
    SCORE = "score"
    ENCODE = "encode"
    WRITE = "write"
    SETTLE = "settle"


class Metrics:
    """The worker's metrics, in a registry of their own."""

    def __init__(self) -> None:
        # A second series for each counter, which nothing of ours reads.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._records = Counter(
            "odradek_records",
            "Records whose output the broker has acknowledged, by what became of them.",
            ["outcome"],
            registry=registry,
        )
        self._dead_letters = Counter(
            "odradek_dead_letters",
            "Records that could not be scored, by reason.",
            ["reason"],
            registry=registry,
        )
        self._stages = BatchHistogram(
            "odradek_turn_stage_seconds",
            "Wall time of each stage of a turn; reading includes waiting for events.",
            STAGE_SECONDS,
            registry,
            ("stage", tuple(Stage)),
        )
        stages_cpu = Counter(
            "odradek_turn_stage_cpu_seconds",
            "CPU time of the worker's own thread in each stage of its turns.",
            ["stage"],
            registry=registry,
        )
        self._batch_records = BatchHistogram(
            "odradek_batch_records", "Records in a turn.", BATCH_RECORDS, registry
        )
        self._latency = BatchHistogram(
            "odradek_event_latency_seconds",
            "From an event's own time to the acknowledgement of its score.",
            SECONDS,
            registry,
        )
        self._ahead = Counter(
            "odradek_events_ahead_of_clock",
            "Events whose own time lies after the acknowledgement of their score.",
            registry=registry,
        )
        self._p_values = BatchHistogram(
            "odradek_p_value",
            "The p-values of scored events; uniform as long as events are as in calibration.",
            P_VALUES,
            registry,
        )
        self._truncated = Counter(
            "odradek_outputs_truncated",
            "Outputs written again in their smaller form because the topic refused their size.",
            registry=registry,
        )
        self._commits = Counter(
            "odradek_commits", "Offset commits, by outcome.", ["outcome"], registry=registry
        )
        self._rebalances = Counter(
            "odradek_rebalances",
            "Changes to this worker's partitions, by kind.",
            ["kind"],
            registry=registry,
        )
        self._model_loads = Counter(
            "odradek_model_loads",
            "Attempts to load the model file, by outcome.",
            ["outcome"],
            registry=registry,
        )
        self._model_info = Gauge(
            "odradek_model_info",
            "1 for the model that scores, and the provider it runs on.",
            ["name", "version", "digest", "provider"],
            registry=registry,
        )
        self._model_loaded = Gauge(
            "odradek_model_loaded_timestamp_seconds",
            "When the current model was loaded, in epoch seconds.",
            registry=registry,
        )
        self._target_flag_rate = Gauge(
            "odradek_target_flag_rate",
            "The share of normal events that the current model is calibrated to flag.",
            registry=registry,
        )
        self._fallback = Gauge(
            "odradek_provider_fallback",
            "1 when a GPU is present and scoring runs on the CPU all the same.",
            registry=registry,
        )
        self._held = Gauge(
            "odradek_held",
            "1 while the worker holds, alive but writing and committing nothing, by what holds it.",
            ["hold"],
            registry=registry,
        )
        self._gaps = Counter(
            "odradek_gaps",
            "Jumps over input records that were lost before they were read.",
            registry=registry,
        )
        self._lost_records = Counter(
            "odradek_lost_records",
            "Input records lost before they were read, at least: retention, truncation, deletion.",
            registry=registry,
        )
        self._last_turn = Gauge(
            "odradek_last_turn_timestamp_seconds",
            "When the last turn was acknowledged, in epoch seconds.",
            registry=registry,
        )
        for verdict in (*get_args(Verdict), "dead_letter"):
            self._records.labels(verdict)
        for reason in Reason:
            self._dead_letters.labels(reason)
        self._stage_cpu = {stage: stages_cpu.labels(stage) for stage in Stage}

    @contextmanager
    def stage(self, stage: Stage) -> Iterator[None]:
        """Time a stage of the turn."""
        started, cpu_before = time.perf_counter(), time.thread_time()
        yield
        self._stage_cpu[stage].inc(time.thread_time() - cpu_before)
        self._stages.observe(time.perf_counter() - started, stage)

    def acknowledged(self, tally: Tally, now: float) -> None:
        """Count a turn whose outputs the broker has; `now` is epoch seconds."""
        for outcome, records in tally.outcomes.items():
            self._records.labels(outcome).inc(records)
        for reason, records in tally.reasons.items():
            self._dead_letters.labels(reason).inc(records)
        latencies = now - np.asarray(tally.timestamps_ms, np.float64) / 1000
        ahead = latencies < 0
        self._latency.observe_all(latencies[~ahead])
        self._ahead.inc(int(ahead.sum()))
        self._p_values.observe_all(tally.p_values)
        self._batch_records.observe(sum(tally.outcomes.values()))
        self._last_turn.set(now)

    def rebalanced(self, kind: str) -> None:
        self._rebalances.labels(kind).inc()

    def committed(self, outcome: str) -> None:
        self._commits.labels(outcome).inc()

    def held(self, hold: str, *, held: bool) -> None:
        self._held.labels(hold).set(held)

    def gap(self, lost_records: int) -> None:
        self._gaps.inc()
        self._lost_records.inc(lost_records)

    def truncated(self, outputs: int) -> None:
        self._truncated.inc(outputs)

    def model_load(self, outcome: str, current: Model, now: float) -> None:
        """Count a load, and say which model is current after it; `now` is epoch seconds."""
        self._model_loads.labels(outcome).inc()
        if outcome != "accepted":
            return
        self.scores_with(current)
        self._model_loaded.set(now)
        self._target_flag_rate.set(current.contract.threshold.target_flag_rate)

    def scores_with(self, current: Model) -> None:
        """Say which model scores, and where: when it is loaded, and when its GPU fails."""
        seen = current.reference
        self._model_info.clear()
        self._model_info.labels(seen.name, seen.version, seen.digest, current.provider).set(1)
        self._fallback.set(current.fell_back)

    def watch_lag(self, lags: Callable[[], Mapping[int, int]]) -> None:
        """Report, at each scrape, how many records each of our partitions is behind."""
        self.registry.register(_Lag(lags))


class _Lag(Collector):
    def __init__(self, lags: Callable[[], Mapping[int, int]]) -> None:
        self._lags = lags

    def describe(self) -> list[GaugeMetricFamily]:
        return [self._family()]

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = self._family()
        for partition, lag in self._lags().items():
            family.add_metric([str(partition)], lag)
        yield family

    def _family(self) -> GaugeMetricFamily:
        return GaugeMetricFamily(
            "odradek_lag_records",
            "Records between this worker's place in a partition and its end.",
            labels=["partition"],
        )
