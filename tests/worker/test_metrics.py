"""The metrics: what they count, and that our histogram is the client library's."""

from __future__ import annotations

import re
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from schemas.calibration import Calibration
from schemas.dead_letter import Reason
from schemas.false_alarms import flag_rate
from tests.builders import Recipe, a_contract, a_graph, a_model, an_extrapolation
from tests.worker.grouped import a_grouped_model
from worker.batch_histogram import BatchHistogram
from worker.declared_model import P_VALUES
from worker.declared_turns import SECONDS, Stage
from worker.health import Health
from worker.metrics import Metrics
from worker.model_metrics import expected_rate
from worker.turn import Released, Sample, Tally, TurnLimits

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
    metrics.acknowledged(tally, read_at=9.95, now=10.0)
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


def test_latency_has_two_parts_and_events_of_the_future_have_none():
    metrics = Metrics()
    tally = a_tally({"normal": 3}, timestamps_ms=[9_000, 9_500, 10_500])
    metrics.acknowledged(tally, read_at=10.0, now=11.0)
    parts = ("event_age_at_read_seconds", "event_in_worker_seconds", "event_latency_seconds")
    age, in_worker, whole = (sample(metrics, f"odradek_{part}_sum") for part in parts)
    assert (age, whole) == pytest.approx((1.5, 3.5))
    assert sample(metrics, "odradek_event_age_at_read_seconds_count") == 2
    assert sample(metrics, "odradek_event_latency_seconds_count") == 2
    # What passed here is known of an event whose own clock is wrong, too.
    assert in_worker == pytest.approx(3.0)
    assert sample(metrics, "odradek_event_in_worker_seconds_count") == 3
    # Ahead when it was read, though not when it was acknowledged: a clock is wrong.
    assert sample(metrics, "odradek_events_ahead_of_clock_total") == 1
    assert sample(metrics, "odradek_last_event_timestamp_seconds") == 10.0


def test_records_wait_in_the_topic_and_those_of_the_future_are_counted_apart():
    metrics = Metrics()
    some = Sample(np.zeros((0, 3), np.float32), np.zeros(0), [9_000, 12_000], "d")
    metrics.acknowledged(a_tally({"normal": 2}, sample=some), read_at=10.0, now=11.0)
    assert sample(metrics, "odradek_record_wait_seconds_count") == 1
    assert sample(metrics, "odradek_record_wait_seconds_sum") == 1.0
    assert sample(metrics, "odradek_sampled_records_ahead_of_clock_total") == 1


def test_turns_tell_why_they_were_released_and_what_was_undone():
    metrics = Metrics()
    metrics.acknowledged(a_tally({}), read_at=1.0, now=2.0, released=Released.FULL)
    metrics.undone()
    assert sample(metrics, "odradek_turns_total", released="full") == 1
    assert sample(metrics, "odradek_turns_total", released="drained") == 0
    assert sample(metrics, "odradek_turns_undone_total") == 1


def test_a_batch_says_why_it_was_let_go_of():
    limits = TurnLimits(10, 0.5)
    assert limits.released(10, waited=True) is Released.FULL
    assert limits.released(9, waited=True) is Released.WAITED
    assert limits.released(9, waited=False) is Released.DRAINED


def test_before_the_first_turn_the_last_one_is_the_start():
    before = time.time()
    metrics = Metrics()
    for name in ("odradek_last_turn_timestamp_seconds", "odradek_last_event_timestamp_seconds"):
        assert before <= sample(metrics, name) <= time.time()


def test_health_is_asked_for_at_each_scrape():
    metrics, health = Metrics(), Health(60.0, last_beat=1.0, joined=True)
    now = 2.0
    metrics.watch_health(health, lambda: now)
    assert (sample(metrics, "odradek_ready"), sample(metrics, "odradek_alive")) == (1, 1)
    assert sample(metrics, "odradek_last_beat_timestamp_seconds") == pytest.approx(
        time.time() - 1.0, abs=0.5
    )
    health.draining = True
    assert (sample(metrics, "odradek_ready"), sample(metrics, "odradek_alive")) == (0, 1)
    now = 100.0
    assert sample(metrics, "odradek_alive") == 0


def test_what_is_expected_of_normal_events_adds_up():
    metrics = Metrics()
    model = a_model(Recipe(rate=0.1))
    metrics.model_load("accepted", model, now=1.0)
    # 20 of 199 calibration events make 20 in 200; the stand-in has no tail.
    n, p = 199, 0.1
    assert sample(metrics, "odradek_calibration_events") == n
    assert sample(metrics, "odradek_expected_flag_rate") == pytest.approx(p)
    assert sample(metrics, "odradek_expected_flag_rate_stddev") == pytest.approx(
        (p * (1 - p) / (n + 2)) ** 0.5
    )
    tally = a_tally({"normal": 190, "anomalous": 10, "dead_letter": 5}, p_values=np.full(200, 0.5))
    metrics.acknowledged(tally, read_at=1.0, now=2.0)
    assert sample(metrics, "odradek_expected_false_alarms_total") == pytest.approx(20)


def test_the_expected_rate_is_the_beta_distributions_own():
    """The counts of flags among m events follow the beta-binomial, as the sentence says."""
    rng = np.random.default_rng(2)
    expected = expected_rate(a_model(Recipe(rate=0.1)).contract)
    k, n, m = 20, 199, 50
    flags = rng.binomial(m, rng.beta(k, n + 1 - k, 200_000))
    p, s = expected
    assert flags.mean() == pytest.approx(m * p, rel=0.01)
    assert flags.var() == pytest.approx(m * p * (1 - p) + m * (m - 1) * s**2, rel=0.02)


def test_the_expected_rate_leaves_out_events_that_are_tied_at_the_threshold():
    contract = a_model(Recipe(rate=0.1)).contract
    tied = Calibration.of([*np.arange(970.0), *[5_000.0] * 29])
    expected = expected_rate(replace(contract, calibration=tied))
    assert tied.threshold(0.1) < 5_000.0
    assert expected.mean == pytest.approx(0.1)
    rate = replace(contract.threshold, target_flag_rate=0.02)
    assert tied.threshold(0.02) == 5_000.0
    none = expected_rate(replace(contract, calibration=tied, threshold=rate))
    assert none.mean == pytest.approx(0.001)


def test_the_rate_of_a_tail_is_its_own():
    recipe = Recipe()
    contract = a_contract(recipe, a_graph(recipe), **an_extrapolation(recipe, 1e-4))
    expected = expected_rate(contract)
    assert expected.mean == pytest.approx(1e-4)
    assert expected.stddev == pytest.approx((4e-4 - 1e-5) / 3.29)


def test_the_rate_of_groups_is_less_uncertain_than_that_of_the_smallest():
    grouped = a_grouped_model().contract
    expected = expected_rate(grouped)
    assert 0 < expected.mean <= grouped.threshold.target_flag_rate
    rates = [
        flag_rate(m.calibration, grouped.threshold.target_flag_rate).mean
        for m in grouped.groups.members
    ]
    assert expected.mean <= max([*rates, grouped.threshold.target_flag_rate])


def test_a_refused_file_is_a_state_that_ends_when_the_file_is_good_again():
    metrics, model = Metrics(), a_model()
    metrics.model_load("accepted", model, now=1.0)
    for outcome, refused in (("refused", 1), ("unchanged", 0), ("refused", 1), ("accepted", 0)):
        metrics.model_load(outcome, model, now=2.0)
        assert sample(metrics, "odradek_model_file_refused") == refused
    assert sample(metrics, "odradek_model_created_timestamp_seconds") == 1_767_225_600


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


def test_a_stage_within_another_is_not_counted_twice():
    """A rebalance settles the turn in flight from inside a read, and from inside a settle."""
    metrics = Metrics()
    began = time.perf_counter()
    with metrics.stage(Stage.READ), metrics.stage(Stage.SETTLE), metrics.stage(Stage.SETTLE):
        until = time.perf_counter() + 0.05
        while time.perf_counter() < until:
            pass
    passed = time.perf_counter() - began

    def spent(name: str, stage: Stage) -> float:
        return sample(metrics, f"odradek_turn_stage_{name}", stage=stage)

    assert 0.05 <= spent("seconds_sum", Stage.SETTLE) <= passed
    assert 0 <= spent("seconds_sum", Stage.READ) <= passed - 0.05
    assert sum(spent("cpu_seconds_total", stage) for stage in Stage) <= passed
    assert spent("seconds_count", Stage.SETTLE) == 2


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


def test_lag_and_position_are_asked_for_at_each_scrape():
    metrics = Metrics()
    lags, positions = {0: 3}, {0: 7, 1: 9}
    metrics.watch_partitions(lambda: lags, lambda: positions)
    assert sample(metrics, "odradek_lag_records", partition="0") == 3
    lags[0], positions[0] = 1, 9
    assert sample(metrics, "odradek_lag_records", partition="0") == 1
    assert sample(metrics, "odradek_position_offset", partition="0") == 9
    assert sample(metrics, "odradek_assigned_partitions") == 2


def test_what_is_scraped_parses_and_every_metric_has_its_sentence():
    metrics = Metrics()
    metrics.watch_partitions(lambda: {0: 1}, lambda: {0: 1})
    families = [*text_string_to_metric_families(generate_latest(metrics.registry).decode())]
    ours = [family for family in families if family.name.startswith("odradek_")]
    assert len(ours) >= 15
    for family in ours:
        assert re.fullmatch(r"[A-Z0-9].+\.", family.documentation), family.name
        assert re.fullmatch(r"odradek_[a-z_0-9]+", family.name)
    assert any(family.name == "process_resident_memory_bytes" for family in families)


def test_two_workers_of_one_process_count_apart():
    first, second = Metrics(), Metrics()
    first.committed("ok")
    assert sample(first, "odradek_commits_total", outcome="ok") == 1
    assert sample(second, "odradek_commits_total", outcome="ok") == 0
