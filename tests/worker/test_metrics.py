"""The metrics: what they count, and that our histogram is the client library's."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from schemas.dead_letter import Reason
from tests.builders import Recipe, a_model
from worker.batch_histogram import BatchHistogram
from worker.metrics import P_VALUES, SECONDS, Metrics, Stage
from worker.turn import Tally

NUMBERS = st.floats(-10, 100, width=32) | st.sampled_from([*SECONDS, *P_VALUES])


def a_tally(outcomes: dict[str, int], **changes) -> Tally:
    values = {
        "outcomes": outcomes,
        "reasons": {},
        "p_values": np.array([]),
        "timestamps_ms": [],
    }
    return Tally(**{**values, **changes})


def sample(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


@settings(max_examples=60)
@given(st.lists(st.lists(NUMBERS, max_size=20), max_size=5), st.sampled_from([SECONDS, P_VALUES]))
def test_a_batch_histogram_is_the_client_librarys_own(batches, bounds):
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    histogram = BatchHistogram("h", "A sentence.", bounds, ours)
    reference = Histogram("h", "A sentence.", buckets=bounds, registry=theirs)
    for batch in batches:
        if len(batch) == 1:
            histogram.observe(batch[0])
        else:
            histogram.observe_all(np.array(batch, np.float64))
        for value in batch:
            reference.observe(value)

    def samples(registry: CollectorRegistry):
        families = text_string_to_metric_families(generate_latest(registry).decode())
        return {
            (s.name, *sorted(s.labels.items())): s.value
            for family in families
            for s in family.samples
            if not s.name.endswith("_created")
        }

    seen, wanted = samples(ours), samples(theirs)
    assert seen.keys() == wanted.keys()
    for key, value in wanted.items():
        assert seen[key] == pytest.approx(value, abs=1e-6)


def test_a_labelled_histogram_has_each_label_from_the_start():
    registry = CollectorRegistry()
    histogram = BatchHistogram("h", "A sentence.", (1.0,), registry, ("stage", ("a", "b")))
    histogram.observe_all(np.array([0.5, 2.0]), "a")
    histogram.observe(1.0, "a")
    assert registry.get_sample_value("h_bucket", {"stage": "a", "le": "1.0"}) == 2
    assert registry.get_sample_value("h_bucket", {"stage": "a", "le": "+Inf"}) == 3
    assert registry.get_sample_value("h_sum", {"stage": "a"}) == 3.5
    assert registry.get_sample_value("h_count", {"stage": "b"}) == 0


def test_a_turn_is_counted_when_it_is_acknowledged():
    metrics = Metrics()
    tally = a_tally(
        {"normal": 3, "anomalous": 1, "dead_letter": 2},
        reasons={Reason.NOT_JSON: 2},
        p_values=np.array([0.5, 0.004]),
        timestamps_ms=[9_000, 9_900, 10_500],
    )
    metrics.acknowledged(tally, now=10.0)
    assert sample(metrics, "odradek_records_total", outcome="normal") == 3
    assert sample(metrics, "odradek_records_total", outcome="dead_letter") == 2
    assert sample(metrics, "odradek_dead_letters_total", reason="not_json") == 2
    assert sample(metrics, "odradek_batch_records_bucket", le="16.0") == 1
    assert sample(metrics, "odradek_batch_records_sum") == 6
    assert sample(metrics, "odradek_p_value_bucket", le="0.005") == 1
    assert sample(metrics, "odradek_event_latency_seconds_count") == 2
    assert sample(metrics, "odradek_event_latency_seconds_sum") == pytest.approx(1.1)
    assert sample(metrics, "odradek_events_ahead_of_clock_total") == 1
    assert sample(metrics, "odradek_last_turn_timestamp_seconds") == 10.0


def test_every_outcome_and_reason_is_there_before_it_happens():
    """A series that appears with its first event has no increase to alert on."""
    metrics = Metrics()
    for outcome in ("normal", "anomalous", "unscorable", "dead_letter"):
        assert sample(metrics, "odradek_records_total", outcome=outcome) == 0
    for reason in Reason:
        assert sample(metrics, "odradek_dead_letters_total", reason=reason) == 0
    for stage in Stage:
        assert sample(metrics, "odradek_turn_stage_seconds_count", stage=stage) == 0


def test_the_stages_of_a_turn_are_timed():
    metrics = Metrics()
    with metrics.stage(Stage.SCORE):
        pass
    assert sample(metrics, "odradek_turn_stage_seconds_count", stage="score") == 1
    assert sample(metrics, "odradek_turn_stage_seconds_sum", stage="score") > 0
    assert sample(metrics, "odradek_turn_stage_cpu_seconds_total", stage="score") > 0


def test_one_model_is_current():
    metrics = Metrics()
    first, second = a_model(), a_model(Recipe(gain=2.0, version="2", rate=0.05))
    metrics.model_load("accepted", first, now=1.0)
    metrics.model_load("refused", first, now=2.0)
    assert sample(metrics, "odradek_model_loaded_timestamp_seconds") == 1.0
    metrics.model_load("accepted", second, now=3.0)
    text = generate_latest(metrics.registry).decode()
    infos = re.findall(r"^odradek_model_info\{.*$", text, re.MULTILINE)
    assert len(infos) == 1
    assert f'digest="{second.digest}"' in infos[0]
    assert 'provider="cpu"' in infos[0]
    assert sample(metrics, "odradek_model_loads_total", outcome="accepted") == 2
    assert sample(metrics, "odradek_model_loads_total", outcome="refused") == 1
    assert sample(metrics, "odradek_target_flag_rate") == 0.05
    assert sample(metrics, "odradek_provider_fallback") == 0


def test_lag_is_asked_for_at_each_scrape():
    metrics = Metrics()
    lags = {0: 3}
    metrics.watch_lag(lambda: lags)
    assert sample(metrics, "odradek_lag_records", partition="0") == 3
    lags[0] = 1
    assert sample(metrics, "odradek_lag_records", partition="0") == 1


def test_what_is_scraped_parses_and_every_metric_has_its_sentence():
    metrics = Metrics()
    metrics.watch_lag(lambda: {0: 1})
    families = [*text_string_to_metric_families(generate_latest(metrics.registry).decode())]
    ours = [family for family in families if family.name.startswith("odradek_")]
    assert len(ours) >= 15
    for family in ours:
        assert re.fullmatch(r"[A-Z0-9].+\.", family.documentation), family.name
        assert re.fullmatch(r"odradek_[a-z_]+", family.name)
    assert any(family.name == "process_resident_memory_bytes" for family in families)


def test_two_workers_of_one_process_count_apart():
    first, second = Metrics(), Metrics()
    first.committed("ok")
    assert sample(first, "odradek_commits_total", outcome="ok") == 1
    assert sample(second, "odradek_commits_total", outcome="ok") is None
