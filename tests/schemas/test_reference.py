"""The drift reference: bins, counts, and the index between two sets of counts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from msgspec import json
from msgspec.structs import replace

from schemas.contract import Contract, ModelRefused
from schemas.reference import BINS, EDGES, Reference, count, stability_index
from tests.builders import Recipe, a_contract, a_graph

VALUES = st.floats(width=32, allow_nan=True, allow_infinity=True)


def edges_of(*rows: list[float]) -> np.ndarray:
    edges = np.full((len(rows), EDGES), np.inf, np.float32)
    for place, row in enumerate(rows):
        edges[place, : len(row)] = row
    return edges


@settings(max_examples=60)
@given(
    hnp.arrays(np.float32, st.tuples(st.integers(0, 30), st.just(2)), elements=VALUES),
    st.lists(st.floats(-100, 100, width=32), max_size=EDGES, unique=True).map(sorted),
)
def test_every_value_is_in_one_bin_as_a_loop_would_have_it(values, inner):
    edges = edges_of(inner, [0.0])
    wanted = np.zeros((2, BINS), np.int64)
    for row in values.tolist():
        for column, value in enumerate(row):
            place = BINS - 1 if np.isnan(value) else int((edges[column] < np.float32(value)).sum())
            wanted[column, place] += 1
    assert (count(values, edges) == wanted).all()


def test_a_value_at_an_edge_belongs_below_it():
    counts = count(np.array([[1.0], [1.5], [np.nan]], np.float32), edges_of([1.0]))
    assert counts[0, :2].tolist() == [1, 1]
    assert counts[0, -1] == 1


def test_the_index_is_the_sum_of_its_definition():
    now, reference = np.array([400, 600, 0]), np.array([500, 300, 200])
    p, q = (now + reference / 1000) / 1001, reference / 1000
    wanted = sum((a - b) * np.log(a / b) for a, b in zip(p, q, strict=True))
    assert stability_index(now, reference) == pytest.approx(wanted)


def test_without_drift_the_index_is_about_the_bins_by_the_events():
    rng = np.random.default_rng(1)
    reference = np.full(10, 6_000)
    now = rng.multinomial(1_000, np.full(10, 0.1), size=2_000)
    assert stability_index(now, reference).mean() == pytest.approx(9 / 1_000, rel=0.1)


def test_bins_that_nothing_is_in_do_not_count():
    some, more = np.array([100, 100]), np.array([100, 100, 0, 0])
    reference = np.array([30_000, 30_000])
    padded = np.append(reference, [0, 0])
    plain = stability_index(some, reference)
    assert stability_index(more, padded) == pytest.approx(plain, abs=2e-3)


def test_what_was_never_seen_is_a_shift():
    reference = np.array([30_000, 30_000, 0])
    assert stability_index(np.array([400, 400, 200]), reference) > 0.25
    assert stability_index(np.array([500, 499, 1]), reference) < 0.1


def a_reference(rows: int = 50, columns: tuple[int, ...] = (2, 0)) -> Reference:
    features = np.random.default_rng(0).normal(size=(rows, 3)).astype(np.float32)
    return Reference.of(features, columns, edges_of(*[[-1.0, 0.0, 1.0]] * len(columns)))


def contract_with(reference: Reference) -> Contract:
    recipe = Recipe()
    return a_contract(recipe, a_graph(recipe), drift_reference=reference)


def test_a_contract_carries_it_and_one_without_says_nothing_of_it():
    contract = contract_with(a_reference())
    again = Contract.from_json(contract.to_json())
    assert again == contract
    assert again.drift_reference.counts_by_feature.sum(axis=1).tolist() == [50, 50]
    without = a_contract(Recipe(), a_graph(Recipe()))
    assert "drift_reference" not in json.decode(without.to_json())


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        (a_reference(columns=(0, 0)), "or one twice"),
        (replace(a_reference(), columns=()), "names 0 features"),
        (
            a_reference(columns=(0,)).__class__.of(np.zeros((2, 9), "f4"), (8,), edges_of([0.0])),
            "not there",
        ),
        (replace(a_reference(), edges=b""), "lengths differ"),
        (Reference.of(np.zeros((2, 3), "f4"), (0,), edges_of([1.0, 0.0])), "do not ascend"),
        (Reference.of(np.zeros((2, 3), "f4"), (0,), edges_of([np.nan])), "do not ascend"),
        (replace(a_reference(), rows=7), "not those of 7 rows"),
    ],
)
def test_one_that_contradicts_itself_is_refused(wrong, complaint):
    with pytest.raises(ModelRefused, match=complaint):
        contract_with(wrong).check()
