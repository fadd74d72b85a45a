"""Drift: of a sample, over a window, with labels that stay few."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from schemas.calibration import Calibration
from schemas.reference import Reference
from tests.builders import Recipe, a_contract, a_graph, a_model, an_event, records
from worker.declared_model import FEATURES_LABELLED_MAX, OTHERS
from worker.drift import (
    BLOCKS,
    ROWS_AT_ONCE,
    SHIFT,
    SHOWN_EVENTS_MIN,
    WINDOW_EVENTS_MIN,
    Drift,
    feature_labels,
)
from worker.results import to_results
from worker.sample import STRIDE, sample_of
from worker.turn import Batch, Sample

DECILES = [-1.28, -0.84, -0.52, -0.25, 0.0, 0.25, 0.52, 0.84, 1.28]
WINDOW_S = 100.0


def a_reference(width: int, columns: tuple[int, ...]) -> Reference:
    rows = np.random.default_rng(9).normal(size=(20_000 if width < 10 else 2_000, 1))
    rows = np.broadcast_to(rows.astype(np.float32), (len(rows), width))
    edges = np.tile(np.array(DECILES, np.float32), (len(columns), 1))
    return Reference.of(rows, columns, edges)


class Bench:
    """A drift of a model of so many features, and a stream of normal ones."""

    def __init__(self, width: int = 3, *, with_reference: bool = True) -> None:
        self.registry = CollectorRegistry()
        self.drift = Drift(self.registry, WINDOW_S)
        recipe = Recipe(features=width)
        changes = {}
        if with_reference:
            columns = tuple(range(min(width, 1000)))[::-1]
            changes["drift_reference"] = a_reference(width, columns)
        self.contract = a_contract(recipe, a_graph(recipe), **changes)
        self.drift.begin(self.contract, "d")
        self.width = width
        self.rng = np.random.default_rng(4)
        self.now = 1000.0

    def stream(self, turns: int, shift: float = 0.0, missing: float = 0.0, p: float = 1.0) -> None:
        """Add turns of 256 sampled events a second; `p` is the largest p-value of theirs."""
        for _ in range(turns):
            features = self.rng.standard_normal((ROWS_AT_ONCE, self.width), np.float32)
            features[:, 0] += shift
            features[self.rng.random(features.shape, np.float32) < missing] = np.nan
            p_values = self.rng.uniform(0, p, ROWS_AT_ONCE)
            self.drift.add(Sample(features, p_values, [], "d"), self.now)
            self.now += 1.0

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"odradek_{name}", labels)


def test_events_as_in_training_show_no_drift_and_shifted_ones_do():
    bench = Bench()
    bench.stream(8)
    assert bench.value("drift_window_events") == 8 * ROWS_AT_ONCE
    for feature in bench.contract.feature_names:
        assert bench.value("feature_drift_psi", feature=feature) < 0.05
    assert bench.value("score_drift_psi") < 0.05
    bench.stream(8, shift=1.5, p=0.5)
    assert bench.value("feature_drift_psi", feature="x0") > 0.25
    assert bench.value("feature_drift_psi", feature="x1") < 0.05
    assert bench.value("score_drift_psi") > 0.25


def test_what_is_missing_counts_and_drifts():
    bench = Bench()
    bench.stream(8, missing=0.5)
    sampled = bench.value("sampled_events_total")
    assert bench.value("sampled_missing_values_total", feature="x1") / sampled == pytest.approx(
        0.5, abs=0.05
    )
    assert bench.value("reference_missing_values", feature="x1") == 0
    assert bench.value("feature_drift_psi", feature="x1") > 0.25


def test_the_window_moves_on():
    bench = Bench()
    bench.stream(50, shift=3.0)
    bench.stream(int(WINDOW_S * (1 + 1 / BLOCKS)) + 1)
    assert bench.value("feature_drift_psi", feature="x0") < 0.05
    age = bench.now - bench.value("drift_window_start_timestamp_seconds")
    assert WINDOW_S <= age <= WINDOW_S * (1 + 1 / BLOCKS) + 2
    assert bench.value("sampled_events_total") == (50 + 111) * ROWS_AT_ONCE


def test_on_a_quiet_topic_it_reaches_back_for_enough_events():
    bench = Bench()
    for _ in range(3 * WINDOW_EVENTS_MIN):
        features = bench.rng.normal(size=(1, 3)).astype(np.float32)
        bench.drift.add(Sample(features, np.array([0.5]), [], "d"), bench.now)
        bench.now += 60.0
    events = bench.value("drift_window_events")
    assert WINDOW_EVENTS_MIN <= events <= WINDOW_EVENTS_MIN + 200
    assert len(bench.drift._blocks) <= 12


def test_few_events_show_no_index():
    bench = Bench()
    few = bench.rng.normal(size=(SHOWN_EVENTS_MIN - 1, 3)).astype(np.float32)
    for at in (0.0, 10.0):  # The second of them has the first counted.
        some = few[: int(at) or len(few) - 10]
        bench.drift.add(Sample(some, np.full(len(few), 0.5), [], "d"), at)
    assert bench.value("drift_window_events") == SHOWN_EVENTS_MIN - 1
    assert bench.value("feature_drift_psi", feature="x0") is None
    assert bench.value("score_drift_psi") is None


def test_a_model_without_a_reference_has_drift_of_its_scores_alone():
    bench = Bench(with_reference=False)
    bench.stream(4, missing=0.1)
    assert bench.value("feature_drift_psi", feature="x0") is None
    assert bench.value("score_drift_psi") < 0.1
    assert bench.value("sampled_missing_values_total", feature="x0") > 0


def test_a_sample_of_the_model_before_is_left_out():
    """Its turn is settled after the reload, and may have other features."""
    bench = Bench()
    bench.stream(1)
    bench.drift.add(Sample(np.zeros((3, 5), np.float32), np.full(3, 0.5), [], "before"), bench.now)
    bench.stream(2)
    assert bench.value("sampled_events_total") == 3 * ROWS_AT_ONCE


def test_after_a_busy_time_a_quiet_one_shows_within_a_thousand_events():
    bench = Bench()
    bench.stream(200)
    bench.now += 10 * WINDOW_S
    for _ in range(WINDOW_EVENTS_MIN + 400):
        bench.drift.add(
            Sample(np.full((1, 3), 9.0, np.float32), np.array([0.5]), [], "d"), bench.now
        )
        bench.now += 10.0
    assert bench.value("drift_window_events") < 2 * WINDOW_EVENTS_MIN
    assert bench.value("feature_drift_psi", feature="x0") > SHIFT


def test_scores_that_are_tied_in_calibration_are_no_drift():
    scores = np.repeat(np.float32([1.0, 2.0, 3.0]), [600, 300, 100])
    bench = Bench()
    contract = replace(bench.contract, calibration=Calibration.of(scores))
    bench.drift.begin(contract, "d")
    fresh = contract.calibration.p_values(bench.rng.permutation(scores))
    features = bench.rng.standard_normal((len(fresh), 3), np.float32)
    for _ in range(2):
        bench.drift.add(Sample(features, fresh, [], "d"), bench.now)
    assert bench.value("score_drift_psi") < 0.1


def test_a_new_model_begins_a_new_window():
    bench = Bench()
    bench.stream(4, shift=3.0)
    bench.drift.begin(bench.contract, "d")
    assert bench.value("drift_window_events") == 0
    assert bench.value("feature_drift_psi", feature="x0") is None
    assert bench.value("sampled_events_total") == 4 * ROWS_AT_ONCE


def test_ten_thousand_features_make_few_series():
    bench = Bench(width=10_000)
    bench.stream(2, shift=3.0, missing=0.01)
    text = generate_latest(bench.registry).decode()
    series = [line for line in text.splitlines() if not line.startswith("#")]
    assert len(series) < 3 * (FEATURES_LABELLED_MAX + 1) + 10
    # The reference is of the first 1,000, in reverse: x0 is one of the others, and drifts.
    assert bench.value("feature_drift_psi", feature=OTHERS) > 0.25
    assert bench.value("feature_drift_psi", feature="x999") < 0.25
    missing = bench.value("sampled_missing_values_total", feature=OTHERS)
    # Those that there is a reference of, to be held against the reference's.
    assert missing == pytest.approx(0.01 * 950 * 2 * ROWS_AT_ONCE, rel=0.1)


def test_what_the_pooled_label_hides_is_named_in_the_log_once(caplog):
    caplog.set_level("INFO")
    bench = Bench(width=60)  # The labelled are x59 to x10, by their order in the reference.
    bench.stream(20, shift=3.0)
    (line,) = caplog.messages
    assert line.startswith("The feature 'x0', which has no label of its own, has drifted")
    assert caplog.records[0].fields["feature"] == "x0"
    bench.stream(120)
    assert caplog.messages[1:] == ["No feature without a label has drifted any more."]


NAMES = st.text(max_size=100) | st.sampled_from([OTHERS, "a" * 200, "a" * 201, '"\\\n{}'])


@given(st.lists(NAMES, max_size=50, unique=True))
def test_labels_of_odd_names_are_short_distinct_and_parse(names):
    labels = feature_labels(names)
    assert len({*labels, OTHERS}) == len(names) + 1
    assert all(len(label) < 300 for label in labels)


def test_a_feature_of_odd_characters_is_scraped_as_it_is():
    odd = 'p\u00e9riode "a\\b"\nof {x}=1'
    recipe = Recipe(features=1)
    contract = a_contract(recipe, a_graph(recipe), features=Bench().contract.features[:1])
    contract = replace(contract, features=(replace(contract.features[0], name=odd),))
    registry = CollectorRegistry()
    Drift(registry, WINDOW_S).begin(contract, "d")
    text = generate_latest(registry).decode()
    labels = {
        sample.labels["feature"]
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if "feature" in sample.labels
    }
    assert labels == {odd}


@given(st.integers(1, 400), st.integers(0, 10_000))
def test_one_event_of_each_turn_is_sampled_and_every_31st_after_it(n, offset):
    log = records([b"x"] * n)
    log.offsets[0] = offset
    features = np.arange(n, dtype=np.float32)[:, None]
    batch = Batch(features, [*range(n)], [""] * n, [0] * n, [])
    sample = sample_of(log, batch, np.linspace(0, 1, n), "d")
    rows = sample.features[:, 0].astype(int)
    assert len(rows) == len(sample.p_values) == len(sample.record_times_ms)
    assert max(1, n // STRIDE) <= len(rows) <= n // STRIDE + 1
    assert (np.diff(rows) == STRIDE).all()
    assert rows[0] < STRIDE
    assert not np.shares_memory(sample.features, features)


def test_the_sample_of_a_turn_has_its_p_values_unscorable_ones_as_nan():
    model = a_model()
    log = records([b"rubbish", an_event(None, None, None)])
    batch = model.decoder.decode(log)
    tally = to_results(log, batch, model.score(batch.features), model, 5).tally
    assert np.isnan(tally.sample.p_values).all()
    assert len(tally.sample.features) == 1
