"""Flags by the feature that leads them, and events judged by the pooled calibration."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from schemas.reference import EDGES, Reference
from schemas.score import decode_score
from tests.builders import Recipe, a_model, an_event, records
from tests.worker.grouped import a_grouped_model
from worker.declared_model import FEATURES_LABELLED_MAX, OTHERS
from worker.metrics import Metrics
from worker.model import Model
from worker.results import to_results
from worker.turn import Outputs, Tally

MODEL = a_model()


def outputs_of(values: list[bytes], model: Model = MODEL) -> Outputs:
    taken = records(values)
    batch = model.decoder.decode(taken)
    return to_results(taken, batch, model.score(batch.features), model, 5)


def a_tally(**flagged_by: int) -> Tally:
    return Tally({"anomalous": 1}, {}, np.array([0.01]), [], flagged_by=flagged_by)


def counted(metrics: Metrics) -> dict[str, float]:
    """The counts by label, as a scrape reads them."""
    families = text_string_to_metric_families(generate_latest(metrics.registry).decode())
    (family,) = [family for family in families if family.name == "odradek_flagged_events"]
    return {sample.labels["feature"]: sample.value for sample in family.samples}


def metrics_of(model: Model) -> Metrics:
    metrics = Metrics()
    metrics.model_load("accepted", model, now=1.0)
    return metrics


def acknowledge(metrics: Metrics, tally: Tally) -> None:
    metrics.acknowledged(tally, read_at=1.0, now=1.1)


def named(model: Model, *names: str) -> Model:
    """The model with its features called otherwise."""
    features = tuple(
        replace(feature, name=name)
        for feature, name in zip(model.contract.features, names, strict=True)
    )
    model.contract = replace(model.contract, features=features)
    return model


@settings(max_examples=60)
@given(st.lists(st.tuples(*[st.sampled_from([0.0, 0.5, -3.0, 7.0])] * 3), max_size=20))
def test_each_flagged_event_counts_once_for_the_feature_that_its_record_names_first(rows):
    outputs = outputs_of([an_event(*row) for row in rows])
    scores = [decode_score(value or b"") for value in outputs.scores.values]
    leading = [score.top_features[0].name for score in scores if score.verdict == "anomalous"]
    assert outputs.tally.flagged_by == {name: leading.count(name) for name in leading}
    assert sum(outputs.tally.flagged_by.values()) == outputs.tally.outcomes.get("anomalous", 0)


def test_what_is_unscorable_or_no_event_leads_nothing():
    assert outputs_of([an_event(None, None, None), b"rubbish"]).tally.flagged_by == {}


def test_flags_are_counted_when_their_turn_is_acknowledged():
    metrics = metrics_of(MODEL)
    assert counted(metrics) == {"x0": 0, "x1": 0, "x2": 0}
    tally = outputs_of([an_event(9, 1, 0), an_event(0, 9, 1), an_event(9, 0, 0)]).tally
    assert counted(metrics) == {"x0": 0, "x1": 0, "x2": 0}
    acknowledge(metrics, tally)
    assert counted(metrics) == {"x0": 2, "x1": 1, "x2": 0}


def test_of_many_features_the_weightiest_have_labels_and_the_rest_count_together():
    width = 3 * FEATURES_LABELLED_MAX
    rows = np.random.default_rng(1).normal(size=(2_000, width)).astype(np.float32)
    deciles = np.quantile(rows, np.arange(1, EDGES + 1) / 10, axis=0).T
    columns = tuple(range(width))[::-1]  # The last one has the largest part.
    reference = Reference.of(rows, columns, deciles[::-1])
    metrics = metrics_of(a_model(Recipe(features=width), drift_reference=reference))
    acknowledge(metrics, a_tally(**{f"x{place}": 1 for place in range(width)}))
    labelled = {f"x{place}": 1.0 for place in columns[:FEATURES_LABELLED_MAX]}
    assert counted(metrics) == {**labelled, OTHERS: width - FEATURES_LABELLED_MAX}


ODD = ['quote " backslash \\ brace }', "two\nlines\r\u2028", "zone=é☃🜚,\x1b[31m\t\x00"]


def test_odd_characters_in_names_come_through_a_scrape_as_they_are():
    metrics = metrics_of(named(a_model(), *ODD))
    acknowledge(metrics, a_tally(**dict.fromkeys(ODD, 2)))
    assert counted(metrics) == dict.fromkeys(ODD, 2)


def test_a_new_model_keeps_the_counts_of_the_features_that_it_has_too():
    metrics = metrics_of(MODEL)
    acknowledge(metrics, a_tally(x0=1, x2=5))
    metrics.model_load("accepted", a_model(Recipe(features=2)), now=2.0)
    assert counted(metrics) == {"x0": 1, "x1": 0}
    acknowledge(metrics, a_tally(x0=1, x2=3))  # Of the model before: it was in flight.
    assert counted(metrics) == {"x0": 2, "x1": 0, OTHERS: 3}


@pytest.mark.parametrize(("site", "ungrouped"), [("quiet", 0), ("elsewhere", 1), (None, 1)])
def test_events_of_no_group_that_has_its_own_calibration_are_counted(site, ungrouped):
    model = a_grouped_model()
    named_site = {} if site is None else {"site": site}
    metrics = metrics_of(model)
    acknowledge(metrics, outputs_of([an_event(1, 2, 3, **named_site)], model).tally)
    assert metrics.registry.get_sample_value("odradek_ungrouped_events_total") == ungrouped


def test_without_groups_none_is_ungrouped():
    assert outputs_of([an_event(1, 2, 3)]).tally.ungrouped == 0
