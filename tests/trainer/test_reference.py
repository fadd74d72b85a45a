"""The drift reference that the trainer stores: bins that fit the rows, the most telling first."""

from __future__ import annotations

import numpy as np
import pytest

from schemas.reference import BINS, REFERENCE_FEATURES_MAX, stability_index
from schemas.reference import count as count_bins
from tests.builders import Recipe, a_graph
from trainer.reference import drift_reference
from trainer.runtime import open_session


def a_reference(columns: list[np.ndarray], numbers: np.ndarray | None = None):
    """Of a stand-in whose score is the mean square, so that wide features say most."""
    features = np.stack(columns, axis=1).astype(np.float32)
    session = open_session(a_graph(Recipe(features=len(columns))).SerializeToString())
    numbers = np.arange(len(features)) if numbers is None else numbers
    return features, drift_reference(session, features, numbers)


RNG = np.random.default_rng(6)
NORMAL = RNG.normal(size=5_000)


def test_a_continuous_feature_has_ten_bins_of_equal_shares():
    _, reference = a_reference([NORMAL])
    assert reference.counts_by_feature[0].tolist() == [500] * 10 + [0]


def test_features_that_say_most_come_first():
    _, reference = a_reference([NORMAL, 10 * NORMAL, 0.1 * NORMAL])
    assert reference.columns == (1, 0, 2)


def test_few_values_have_a_bin_each_and_missing_ones_theirs():
    flags = np.tile([0.0, 0.0, 1.0, np.nan], 250)
    _, reference = a_reference([flags])
    counts = reference.counts_by_feature[0]
    assert counts[:2].tolist() == [500, 250]
    assert counts[BINS - 1] == 250
    assert counts.sum() == reference.rows == 1000


@pytest.mark.parametrize("changed", [4.999999, 5.000001])
def test_a_constant_that_changes_either_way_is_a_shift(changed):
    _, reference = a_reference([np.full(1000, 5.0), NORMAL[:1000]])
    place = reference.columns.index(0)
    edges = reference.edges_by_feature[place : place + 1]
    for value, drifts in ((5.0, False), (changed, True)):
        now = count_bins(np.full((300, 1), value, np.float32), edges)
        assert (stability_index(now[0], reference.counts_by_feature[place]) > 0.25) == drifts


def test_a_feature_that_is_mostly_one_value_keeps_bins_for_the_rest():
    mostly = np.where(np.arange(5_000) % 20 == 0, NORMAL, 0.0)
    _, reference = a_reference([mostly])
    assert (reference.counts_by_feature[0] > 0).sum() >= 2
    assert reference.counts_by_feature[0].sum() == 5_000


def test_only_the_rows_that_are_named_count():
    features, reference = a_reference([np.append(NORMAL, 1e6 + NORMAL)], np.arange(5_000))
    assert reference.rows == 5_000
    assert reference.edges_by_feature.max() < 10
    assert len(features) == 10_000


def test_a_column_without_a_value_among_them_is_all_missing():
    _, reference = a_reference([NORMAL[:50], np.full(50, np.nan)])
    assert reference.counts_by_feature[reference.columns.index(1), -1] == 50


def test_of_many_features_a_thousand_have_a_reference():
    _, reference = a_reference([NORMAL[:20]] * (REFERENCE_FEATURES_MAX + 5))
    assert len(reference.columns) == REFERENCE_FEATURES_MAX
    assert len(reference.edges) + len(reference.counts) < 100_000
    assert not list(reference.complaints(REFERENCE_FEATURES_MAX + 5))


def test_a_sealed_model_carries_that_of_its_calibration_rows(sealed):
    reference = sealed.contract.drift_reference
    assert reference.rows == sealed.contract.calibration.n
    assert sorted(reference.columns) == [*range(len(sealed.contract.features))]
    missing = reference.counts_by_feature[:, -1] / reference.rows
    assert missing.max() < 0.05  # One in a hundred of them is missing.
