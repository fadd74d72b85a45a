from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.metrics import average_precision, false_alarms_at, roc_auc, roc_curve, share_above

few = st.lists(st.integers(0, 6), min_size=1, max_size=12).map(lambda s: np.array(s, np.float32))


def test_auc_counts_a_tie_as_half():
    # Of 2 x 3 pairs, 3 are won, 2 are ties, 1 is lost.
    assert roc_auc(np.array([1.0, 2.0, 3.0]), np.array([3.0, 2.0])) == (3 + 2 / 2) / 6


@given(few, few)
def test_auc_is_the_share_of_pairs_in_order(normal, anomalous):
    pairs = [float(a > n) + 0.5 * float(a == n) for a in anomalous for n in normal]

    assert roc_auc(normal, anomalous) == pytest.approx(np.mean(pairs))


@given(few, few)
def test_the_area_under_the_roc_curve_is_the_auc(normal, anomalous):
    fpr, tpr = roc_curve(normal, anomalous)

    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
    assert np.trapezoid(tpr, fpr) == pytest.approx(roc_auc(normal, anomalous))
    for level in {*normal, *anomalous}:
        point = ((normal >= level).mean(), (anomalous >= level).mean())
        assert point in set(zip(fpr, tpr, strict=True))


def test_average_precision_by_hand_with_ties():
    # Levels: 4 (1 anomaly of 1), 3 (tie of one each: 2 of 3), 1 (3 of 5).
    normal, anomalous = np.array([3.0, 1.0]), np.array([4.0, 3.0, 1.0])

    assert average_precision(normal, anomalous) == pytest.approx((1 / 1 + 2 / 3 + 3 / 5) / 3)


@given(few, few)
def test_average_precision_does_not_depend_on_the_order(normal, anomalous):
    levels = sorted({*normal, *anomalous}, reverse=True)
    total, recall = 0.0, 0.0
    for level in levels:
        hits, alarms = (anomalous >= level).sum(), (normal >= level).sum()
        total += hits / (hits + alarms) * (hits / len(anomalous) - recall)
        recall = hits / len(anomalous)

    assert average_precision(normal, anomalous) == pytest.approx(total)
    assert average_precision(normal[::-1], anomalous[::-1]) == pytest.approx(total)


def test_what_equals_the_threshold_is_not_flagged():
    assert share_above(np.array([1, 2, 3, 3], np.float32), 2.0) == 0.5


@pytest.mark.parametrize(
    ("tpr", "wanted"), [(0.1, 0.0), (0.2, 0.0), (0.3, 0.25), (0.4, 0.25), (1.0, 1.0)]
)
def test_false_alarms_at_a_detected_share(tpr, wanted):
    normal, anomalous = np.array([0.0, 1.0, 2.0, 4.0]), np.array([5.0, 4.0, 3.0, 2.0, 0.0])

    assert false_alarms_at(normal, anomalous, tpr) == wanted
