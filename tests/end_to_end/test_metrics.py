"""The metrics, the probes and the logs of a real worker on a real Kafka."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from demo.worker_process import WorkerProcess
from schemas.reference import EDGES, Reference
from tests.builders import a_sealed_model, an_event
from tests.components import program, within
from tests.end_to_end.stream import Stream, ask, ends, running
from worker.declared import DECLARED

EVENTS = 3_000


def a_model_with_a_reference(folder: Path) -> Path:
    rows = np.random.default_rng(1).normal(size=(5_000, 3)).astype(np.float32)
    deciles = np.quantile(rows, np.arange(1, EDGES + 1) / 10, axis=0).T
    path = folder / "model.onnx"
    path.write_bytes(a_sealed_model(drift_reference=Reference.of(rows, (0, 1, 2), deciles)))
    return path


def scrape(worker: WorkerProcess) -> dict[tuple[str, ...], float]:
    """Every sample by its name and its labels."""
    return {
        (sample.name, *(f"{k}={v}" for k, v in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(ask(worker, "/metrics")[1])
        for sample in family.samples
    }


def test_a_worker_that_has_worked_shows_all_that_is_declared(stream: Stream, tmp_path: Path):
    rng = np.random.default_rng(2)
    rows = rng.normal([2.0, 0.0, 0.0], size=(EVENTS, 3))
    now_ms = int(time.time() * 1000)
    values = [an_event(*row, event_id=f"{n}", timestamp=now_ms) for n, row in enumerate(rows)]
    sent = stream.send([*values, b"rubbish"])
    worker = stream.worker(a_model_with_a_reference(tmp_path), tmp_path, ODRADEK_BATCH_MAX="4")
    with running(worker):
        assert within(lambda: stream.committed() == ends(sent))
        producer = "odradek_kafka_statistics_timestamp_seconds", "client=producer"
        assert within(lambda: producer in scrape(worker))
        seen = scrape(worker)
        text = ask(worker, "/metrics")[1]
        environment = {**os.environ, "ODRADEK_HTTP_PORT": str(worker.http_port)}
        asked = subprocess.run(
            [sys.executable, "-m", "worker", "health", "--ready"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (asked.returncode, asked.stdout) == (0, "ok\n")
        _still_answers_while_it_stops(worker)
    families = {name.split("=")[0] for name, *_ in seen}
    for metric in DECLARED:
        shown = (metric.scraped_name, f"{metric.scraped_name}_count")
        assert {*shown} & families or metric.name == "odradek_produce_errors", metric.name
    assert seen["odradek_ready",] == seen["odradek_alive",] == 1
    assert seen["odradek_assigned_partitions",] == 3
    assert sum(v for (name, *_), v in seen.items() if name == "odradek_records_total") == len(sent)
    assert seen["odradek_turns_total", "released=full"] > 100
    assert seen["odradek_event_latency_seconds_count",] == EVENTS
    assert seen["odradek_record_wait_seconds_count",] > 100
    assert seen["odradek_kafka_brokers", "client=consumer", "state=up"] >= 1
    assert seen["odradek_kafka_round_trip_seconds", "client=producer"] > 0
    flagged = [seen["odradek_flagged_events_total", f"feature=x{place}"] for place in range(3)]
    assert sum(flagged) == seen["odradek_records_total", "outcome=anomalous"] > 100
    assert flagged[0] > 5 * max(flagged[1:])
    assert seen["odradek_feature_drift_psi", "feature=x0"] > 0.25
    assert seen["odradek_feature_drift_psi", "feature=x1"] < 0.1
    assert seen["odradek_score_drift_psi",] > 0.25
    checked = subprocess.run(
        [program("promtool", "prometheus"), "check", "metrics"],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
    _has_told_its_changes(worker)


def _still_answers_while_it_stops(worker: WorkerProcess) -> None:
    """Scrape without a pause until nobody answers: no answer is anything but whole."""
    statuses: list[int] = []

    def scrapes() -> None:
        try:
            while True:
                status, text = ask(worker, "/metrics")
                assert text.endswith("\n")
                statuses.append(status)
        except (OSError, http.client.HTTPException):  # A cut answer shows by its length.
            return

    scraper = threading.Thread(target=scrapes)
    scraper.start()
    assert within(lambda: statuses)
    assert worker.stop() == 0
    scraper.join(30)
    assert not scraper.is_alive()
    assert {*statuses} == {200}


def _has_told_its_changes(worker: WorkerProcess) -> None:
    """Every line is JSON, and those of changes have the fields that the metrics have as labels."""
    lines = [json.loads(line) for line in worker.log.read_text().splitlines()]
    assert next(line["kind"] for line in lines if "kind" in line) == "assigned"
    (loaded,) = [line for line in lines if line.get("outcome") == "accepted"]
    assert (loaded["name"], loaded["provider"]) == ("stand-in", "cpu")
