from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.datafiles import FileOptions, RowStore, Table
from schemas.datafiles.store import BLOCK_ROWS
from schemas.errors import DataError, SettingsError
from tests.trainer.conftest import NAMES, normal_rows, write_csv
from trainer.__main__ import main
from trainer.calibrate import plan_calibration
from trainer.data import (
    HELD_OUT_ROWS_MAX,
    load,
    per_feature,
    rows_digest,
    rows_in_common,
    split,
    suspicious_columns,
)
from trainer.rows import SAMPLE_VALUES_MAX


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


@pytest.fixture(scope="module")
def long_npz(tmp_path_factory):
    """More than two blocks of rows, some of which are left out in each, and some repeated."""
    rng = np.random.default_rng(0)
    n = 2 * BLOCK_ROWS + 1000
    rows = rng.normal(size=(n, 3)).astype(np.float32)
    rows[:, 2] = 7.5
    rows[rng.random(n) < 0.01, :2] = np.nan  # Of constants alone.
    rows[rng.random(n) < 0.01] = [1, 2, 7.5]
    path = tmp_path_factory.mktemp("long") / "long.npz"
    np.savez(path, X=rows, y=rng.random(n) < 0.02)
    with np.load(path) as held:
        kept = rows[~held["y"] & ~np.isnan(rows[:, 0])]
    return path, kept


@pytest.mark.parametrize("memory_bytes_max", [0, 2**30])
def test_long_data_are_the_same_in_memory_and_in_scratch(tmp_path, long_npz, memory_bytes_max):
    path, kept = long_npz
    store = RowStore(memory_bytes_max, tmp_path)

    table, _, quality = load([path], FileOptions(), {}, store=store)

    np.testing.assert_array_equal(table.features, kept)
    assert isinstance(table.features, np.memmap) == (memory_bytes_max == 0)
    assert quality.rows_used == len(kept)
    assert quality.anomalies_left_out + quality.unscorable_left_out == quality.rows_read - len(kept)
    assert quality.missing_values == np.isnan(kept).sum()
    gaps = np.isnan(kept).sum(axis=0).tolist()
    assert quality.missing_rows == {f"f{i}": rows for i, rows in enumerate(gaps) if rows}
    assert quality.repeated_rows == len(kept) - len(np.unique(kept, axis=0))
    digest = hashlib.sha256(b"f0\x00f1\x00f2" + kept.tobytes()).hexdigest()
    assert rows_digest(table) == digest


def test_a_scratch_folder_that_is_not_there_is_named_before_anything_is_read(tmp_path, capsys):
    out, absent = tmp_path / "m.onnx", tmp_path / "absent"

    assert main(["fit", "absent.csv", "--out", str(out), "--scratch", str(absent)]) == 2
    assert f"--scratch {absent}: wanted a folder that is there" in capsys.readouterr().err


def test_of_very_many_rows_only_so_many_stop_and_combine():
    plan = plan_calibration(3_000_000, None)

    parts = split(3_000_000, 57, plan, 0, combines=True)

    assert len(parts.stop) == len(parts.combine) == HELD_OUT_ROWS_MAX
    assert len(parts.fit) == 3_000_000 - plan.events - 2 * HELD_OUT_ROWS_MAX


@pytest.mark.parametrize("wide", [{"width": 10_000}, {"width": 3, "columns": 10_000}])
def test_rows_of_very_many_columns_that_stop_and_combine_are_bounded_by_their_values(wide):
    plan = plan_calibration(100_000, None)

    parts = split(100_000, plan=plan, seed=0, combines=True, **wide)

    assert 10_000 * len(parts.stop) <= SAMPLE_VALUES_MAX < 10_000 * (len(parts.stop) + 1)
    assert len(parts.combine) == len(parts.stop)


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
