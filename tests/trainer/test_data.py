from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.datafiles import FileOptions, Table
from schemas.errors import DataError, SettingsError
from tests.trainer.conftest import NAMES, normal_rows, write_csv
from trainer.calibrate import plan_calibration
from trainer.data import (
    load,
    per_feature,
    rows_digest,
    rows_in_common,
    split,
    suspicious_columns,
)


@given(st.integers(48, 5000), st.integers(0, 2**32))
def test_every_row_is_in_exactly_one_part(rows, seed):
    parts = split(rows, 1, plan_calibration(rows, None), seed)

    dealt = np.concatenate([parts.fit, parts.stop, parts.combine, parts.calibrate])
    assert sorted(dealt) == list(range(rows))
    assert len(parts.fit) >= rows / 2 - 1
    assert len(parts.stop) >= 1
    assert len(parts.combine) == 0


def test_the_seed_deals_the_rows():
    plan = plan_calibration(500, None)

    assert np.array_equal(split(500, 1, plan, 1).fit, split(500, 1, plan, 1).fit)
    assert not np.array_equal(split(500, 1, plan, 1).fit, split(500, 1, plan, 2).fit)


def test_labelled_anomalies_and_rows_that_cannot_be_scored_are_left_out_and_counted(tmp_path):
    rows = np.nan_to_num(normal_rows(20))
    rows[0] = np.nan
    rows[1, 1] = np.nan
    rows[2, 0] = np.nan
    rows[4] = rows[5]
    path = write_csv(tmp_path / "a.csv", rows, labels=[0] * 17 + [1] * 3)

    table, policies, quality = load([path], FileOptions(label_column="label"), {"eta": "refuse"})

    assert len(table) == quality.rows_used == 20 - 3 - 2
    assert quality.rows_read == 20
    assert quality.anomalies_left_out == 3
    assert quality.unscorable_left_out == 2
    assert quality.missing_values == 1
    assert quality.repeated_rows == 1
    assert policies == ("mask", "refuse", "mask", "mask", "mask", "mask")
    assert table.labels is None


def test_fewer_fit_rows_than_features_are_refused():
    """Of 100 rows 39 calibrate and 10 say when to stop: 100 are enough only for 41 features."""
    plan = plan_calibration(100, 0.025)

    assert len(split(100, 51, plan, 0).fit) == 51
    with pytest.raises(DataError, match=r"of 100 usable row\(s\) 51 are left to fit 52 features"):
        split(100, 52, plan, 0)


def test_rows_of_constants_alone_are_left_out(tmp_path):
    rows = np.nan_to_num(normal_rows(20))
    rows[3, :5] = np.nan
    path = write_csv(tmp_path / "a.csv", rows)

    table, _, quality = load([path], FileOptions(), {})

    assert len(table) == 19
    assert quality.unscorable_left_out == 1


def test_a_choice_for_no_feature_names_the_nearest_one():
    with pytest.raises(SettingsError, match=r"no feature is named 'mas'; did you mean 'mass'\?"):
        per_feature({"mas": "asinh"}, NAMES, "auto", "transforms")


def test_a_choice_of_its_own_goes_before_the_one_for_every_feature():
    assert per_feature({"*": 1, "b": 2}, ["a", "b"], 0, "x") == (1, 2)
    assert per_feature({"b": 2}, ["a", "b"], 0, "x") == (0, 2)


def test_a_column_that_looks_like_the_label_is_pointed_out():
    assert suspicious_columns(["pt", "Label", "labelled"]) == ["Label"]


def test_rows_in_common_are_counted_value_for_value():
    first = np.array([[1, np.nan], [2, 3], [4, 5]], np.float32)
    second = np.array([[1, np.nan], [1, 2], [4, 5], [4, 5]], np.float32)

    assert rows_in_common(first, second) == 3


def test_the_digest_of_the_rows_covers_names_values_and_order():
    rows = np.array([[1, 2], [3, 4]], np.float32)
    table = Table(("a", "b"), (("a",), ("b",)), rows)

    others = [
        Table(("a", "c"), table.paths, rows),
        Table(table.names, table.paths, rows[::-1]),
        Table(table.names, table.paths, rows + 1),
    ]
    assert len({rows_digest(other) for other in [table, *others]}) == 4
