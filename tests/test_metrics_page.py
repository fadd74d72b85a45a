"""The page of metrics is the code's, and a real scrape is the page's."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tests.builders import a_model
from tests.components import program
from tests.metrics_page import DERIVED, PAGE, page
from worker.declared import DECLARED
from worker.drift import ROWS_AT_ONCE, SHOWN_EVENTS_MIN
from worker.health import Health
from worker.metrics import Metrics
from worker.statistics import read_statistics
from worker.turn import Sample, Tally


@pytest.fixture(scope="module")
def scraped() -> str:
    """What a worker of a while shows: something of everything."""
    metrics = Metrics()
    metrics.watch_health(Health(60.0, last_beat=0.0), lambda: 1.0)
    metrics.watch_partitions(lambda: {0: 3}, lambda: {0: 7})
    model = a_model()
    metrics.model_load("accepted", model, now=1.0)
    for client in ("consumer", "producer"):
        metrics.librdkafka.hear(client, read_statistics('{"brokers": {}}'))
    metrics.not_taken("MSG_SIZE_TOO_LARGE")
    rows = max(ROWS_AT_ONCE, SHOWN_EVENTS_MIN)
    p_values = np.linspace(0.001, 1, rows)
    sample = Sample(np.zeros((rows, 3), np.float32), p_values, [900], model.digest)
    tally = Tally({"normal": rows}, {}, p_values, [900] * rows, sample=sample)
    metrics.acknowledged(tally, read_at=1.0, now=1.1)
    return generate_latest(metrics.registry).decode()


def test_the_page_is_the_code():
    assert PAGE.read_text() == page(), "run: python -m tests.metrics_page"


def test_what_is_scraped_is_what_is_declared(scraped):
    families = {f.name: f for f in text_string_to_metric_families(scraped)}
    ours = {name for name in families if name.startswith("odradek_")}
    assert ours == {metric.name for metric in DECLARED}
    for metric in DECLARED:
        family = families[metric.name]
        assert (family.type, family.documentation) == (metric.kind, metric.sentence)
        labels = {name for sample in family.samples for name in sample.labels} - {"le"}
        assert labels <= set(metric.label_names)
        # Only the drift of features wants a reference, which the model of this test has none of.
        assert family.samples or metric.name in (
            "odradek_feature_drift_psi",
            "odradek_reference_missing_values",
        )


def test_promtool_finds_nothing_against_the_names(scraped):
    promtool = program("promtool", "prometheus")
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=scraped, capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_promtool_would_find_something():
    promtool = program("promtool", "prometheus")
    bad = "# TYPE odradek_seconds_wrong counter\nodradek_seconds_wrong 1\n"
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=bad, capture_output=True, text=True, check=False
    )
    assert checked.returncode != 0


def test_what_is_told_from_other_metrics_can_be_asked(tmp_path):
    promtool = program("promtool", "prometheus")
    rules = "".join(f"  - record: r{n}\n    expr: {e!r}\n" for n, e in enumerate(DERIVED.values()))
    path = tmp_path / "rules.yml"
    path.write_text("groups:\n- name: g\n  rules:\n" + rules)
    checked = subprocess.run(
        [promtool, "check", "rules", str(path)], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
