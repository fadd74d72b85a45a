"""One watched worker for each fault of the live test, and how a fault is seen to come and go."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from demo.broker import Broker
from demo.worker_process import WorkerProcess
from deploy.alerts.parameters import Parameters
from deploy.alerts.rules import rules
from schemas.reference import EDGES, Reference
from tests.builders import Recipe, a_sealed_model
from tests.components import within
from tests.deploy.feed import Feed
from tests.deploy.monitoring import Pager as Pager
from tests.deploy.monitoring import Prometheus, Told
from tests.end_to_end.stream import PARTITIONS, Stream

RATE = 60.0
WAIT_S = 60.0
JUST_S = 10.0
# The rules that a team uses, in seconds instead of minutes.
SHORT = dataclasses.replace(
    Parameters(),
    workers_missing_for_s=2,
    keep_firing_s=1,
    quiet_window_s=4,
    quiet_for_s=1,
    held_for_s=2,
    unready_for_s=4,
    lag_window_s=12,
    lag_records_min=100,
    lag_for_s=2,
    stalled_window_s=6,
    stalled_for_s=2,
    latency_objective_s=4.0,
    latency_window_s=5,
    latency_for_s=1,
    bad_window_s=6,
    bad_for_s=2,
    commit_window_s=6,
    commit_for_s=2,
    restart_window_s=30,
    restarts_max=0,
    restart_for_s=1,
    lost_window_s=15,
    lost_for_s=1,
    flag_window_s=8,
    flag_for_s=2,
    drift_for_s=2,
    refused_for_s=2,
    model_age_max_s=86_400,
    model_age_for_s=2,
    fallback_for_s=2,
)


def a_model(path: Path, *, features: int = 3, made: str | None = None, version: str = "1") -> Path:
    """Put a sealed model with a reference in place, in one move as the trainer does."""
    rows = np.random.default_rng(1).normal(size=(5_000, features)).astype(np.float32)
    deciles = np.quantile(rows, np.arange(1, EDGES + 1) / 10, axis=0).T
    sealed = a_sealed_model(
        Recipe(features=features, version=version),
        created_at=made or f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        drift_reference=Reference.of(rows, tuple(range(features)), deciles),
    )
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_bytes(sealed)
    unfinished.rename(path)
    return path


class Watched:
    """A worker on topics of its own, fed at a steady rate, and watched as the job of its name."""

    def __init__(
        self, job: str, broker: Broker, folder: Path, rate: float = RATE, **settings: str
    ) -> None:
        names = [f"{job}-{what}-{uuid4().hex[:6]}" for what in ("events", "scores", "letters")]
        broker.create_topics(dict.fromkeys(names, PARTITIONS))
        self.job = job
        self.stream = Stream(broker.bootstrap_servers, *names)
        self.model = a_model(folder / f"{job}.onnx")
        self.worker: WorkerProcess = self.stream.worker(
            self.model,
            folder,
            ODRADEK_DRIFT_WINDOW_S="5",
            ODRADEK_ALLOW_CONTRACT_CHANGE="true",
            **settings,
        )
        self.feed = Feed(broker.bootstrap_servers, self.stream.input, rate)
        self.parameters = dataclasses.replace(SHORT, job=job)

    def start(self) -> None:
        self.worker.start()
        self.worker.wait_until_ready()
        self.feed.start()

    def stop(self) -> None:
        self.feed.stop()
        self.worker.kill()


class OnCall:
    """Who is told of alerts, and looks at Prometheus."""

    def __init__(self, prometheus: Prometheus, pager: Pager) -> None:
        self.prometheus, self.pager = prometheus, pager
        self.took_s: dict[tuple[str, str], Mapping[str, float]] = {}

    def sees_health(self, job: str) -> bool:
        """Return whether events flow and nothing is wrong, as it may be while a worker starts."""
        flow = self.prometheus.query(
            f'increase(odradek_records_total{{job="{job}", outcome="normal"}}[4s]) > 0'
        )
        return bool(flow) and not self.what_is_wrong(job)

    def what_is_wrong(self, job: str) -> list[Mapping[str, Any]]:
        """Return the series of its alerts, pending ones among them."""
        return self.prometheus.query(f'ALERTS{{job="{job}"}}')

    def is_told(self, watched: Watched, alert: str) -> Told:
        """Wait until the alert has come; its rule must have returned series just before."""
        started, job = time.monotonic(), watched.job
        came = within(lambda: self.pager.heard(job, alert, "firing"), WAIT_S)
        assert came, f"{job}: no {alert} within {WAIT_S:g} s; told {self.pager.told}"
        rule = next(each for each in rules(watched.parameters) if each.name == alert)
        told = self.pager.heard(job, alert, "firing")
        assert told is not None
        now = time.time()
        seen = self.prometheus.query_range(rule.expression, now - JUST_S, now, 1)
        assert seen, f"{alert} fires, and its rule has returned nothing"
        assert told.labels["severity"] == rule.severity
        assert told.annotations["runbook_url"] == f"docs/runbook.md#{alert.lower()}"
        self.took_s[job, alert] = {"fired": time.monotonic() - started}
        return told

    def is_relieved(self, watched: Watched, alert: str) -> None:
        """Wait until the alert is resolved."""
        started, job = time.monotonic(), watched.job
        gone = within(lambda: self.pager.heard(job, alert, "resolved"), WAIT_S)
        assert gone, f"{job}: {alert} was not resolved within {WAIT_S:g} s"
        self.took_s[job, alert] = {
            **self.took_s[job, alert],
            "resolved": time.monotonic() - started,
        }
