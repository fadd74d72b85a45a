"""Numbers that another type carries, or that ours cannot: timestamps and large integers."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.datafiles import FileOptions, read_table, read_tables
from schemas.errors import DataError
from schemas.event import EventLayout


@pytest.mark.parametrize(
    "kind", [pa.timestamp("ns"), pa.timestamp("s", "UTC"), pa.timestamp("us", "+05:00")]
)
@pytest.mark.parametrize("asked", ["ms", "s", "rfc3339"])
def test_a_parquet_files_own_timestamps_are_times_whatever_kind_is_asked_for(tmp_path, kind, asked):
    path = tmp_path / "events.parquet"
    when = pa.array([1_767_225_600, 0], pa.int64()).cast(pa.timestamp("s")).cast(kind)
    pq.write_table(pa.table({"a": [1.0, 2.0], "when": when}), path)
    options = FileOptions(timestamp_column="when", layout=EventLayout(timestamp_kind=asked))

    assert read_table(path, options).timestamps_ms == [1_767_225_600_000, 0]


def test_a_parquet_timestamp_that_is_missing_is_refused(tmp_path):
    path = tmp_path / "events.parquet"
    pq.write_table(pa.table({"a": [1.0], "when": pa.array([None], pa.timestamp("ms"))}), path)

    with pytest.raises(DataError, match="the time 'when' is None"):
        read_table(path, FileOptions(timestamp_column="when"))


def write_integers(tmp_path, kind):
    columns = {
        "huge": [2**53 + 2 * n for n in range(9)],
        "ms": [1_767_225_600_000 + n for n in range(9)],
        "apart": [2**30 * n for n in range(9)],
        "small": list(range(9)),
        "real": [1e9 + n / 7 for n in range(9)],
    }
    path = tmp_path / f"events.{kind}"
    if kind == "csv":
        lines = [",".join(map(repr, row)) for row in zip(*columns.values(), strict=True)]
        path.write_text("\n".join([",".join(columns), *lines]))
    elif kind == "parquet":
        pq.write_table(pa.table(columns), path)
    elif kind == "npz":
        np.savez(path, X=np.array(list(columns.values())).T, feature_names=list(columns))
    else:
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        path.write_text("\n".join(json.dumps({"features": row}) for row in rows))
    return path


@pytest.mark.parametrize("kind", ["csv", "parquet", "npz", "jsonl"])
def test_integers_that_float32_cannot_tell_apart_are_named(tmp_path, kind):
    path = write_integers(tmp_path, kind)

    assert read_table(path, FileOptions()).collapsed == ("huge", "ms")
    assert read_tables([path, path], FileOptions()).collapsed == ("huge", "ms")
