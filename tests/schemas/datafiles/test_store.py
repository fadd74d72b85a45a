"""Where rows go as files are read: the same rows, in memory or in a scratch file."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.datafiles import FileOptions, RowStore, read_tables
from schemas.datafiles.store import BLOCK_ROWS
from schemas.datafiles.wide_integers import WideIntegers
from schemas.errors import DataError, OutsideError

NOTHING_IN_MEMORY = 0
OPTIONS = FileOptions(label_column="bad", category_columns=("port",))


def in_scratch(folder, **told):
    return RowStore(NOTHING_IN_MEMORY, folder, **told)


@pytest.mark.parametrize("memory_bytes_max", [0, 100, 1e9])
def test_rows_come_back_as_they_were_appended(tmp_path, memory_bytes_max):
    blocks = [np.random.default_rng(n).normal(size=(n, 3)).astype("f4") for n in (5, 0, 7, 1)]
    counts = []
    store = RowStore(memory_bytes_max, tmp_path, counts.append)

    for block in blocks:
        store.append(block)

    np.testing.assert_array_equal(store.rows(3), np.concatenate(blocks))
    assert isinstance(store.rows(3), np.memmap) == (memory_bytes_max < 1e9)
    assert counts == [5, 5, 12, 13]


def test_a_scratch_file_has_no_name_and_so_leaves_nothing_behind(tmp_path):
    store = in_scratch(tmp_path)
    store.append(np.ones((4, 2), np.float32))
    rows = store.rows(2)
    rows[1] = 5

    assert list(tmp_path.iterdir()) == []
    assert store.rows(2).tolist() == [[1, 1], [5, 5], [1, 1], [1, 1]]


def test_a_scratch_folder_that_cannot_be_written_is_named_with_the_way_out(tmp_path):
    with pytest.raises(OutsideError, match=r"absent cannot be written .* name a .*--scratch"):
        in_scratch(tmp_path / "absent").append(np.ones((1, 1), np.float32))


def two_files(folder, kind):
    """Write two files of the same columns in another order; the second has a text of its own."""
    first = {"a": [1.5, None, 3], "port": ["ssh", "http", None], "bad": [0, 1, 0]}
    second = {"bad": [1, 0], "port": ["dns", "ssh"], "a": [2**24 + 1, 2**24]}
    paths = [folder / f"{number}.{kind}" for number in (1, 2)]
    for path, columns in zip(paths, (first, second), strict=True):
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        if kind == "parquet":
            columns["a"] = pa.array(columns["a"], pa.float64())
            pq.write_table(pa.table(columns), path)
        elif kind == "csv":
            cells = [["" if v is None else str(v) for v in row.values()] for row in rows]
            path.write_text("\n".join(",".join(row) for row in [[*columns], *cells]) + "\n")
        else:
            path.write_text("".join(json.dumps({"features": row}) + "\n" for row in rows))
    return paths


@pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl"])
def test_several_files_are_the_same_table_in_scratch_as_in_memory(tmp_path, kind):
    options = OPTIONS
    if kind == "jsonl":
        options = FileOptions(label_column="features.bad", category_columns=("port",))
    paths = two_files(tmp_path, kind)
    held = read_tables(paths, options)
    spilled = read_tables(paths, options, store=in_scratch(tmp_path))

    np.testing.assert_array_equal(spilled.features, held.features)
    assert held.names == spilled.names == ("a", "port")
    assert held.categories == spilled.categories == {"port": ("ssh", "http", "dns")}
    assert held.features[:, 1].tolist()[3:] == [2, 0]
    assert held.labels.tolist() == spilled.labels.tolist() == [False, True, False, True, False]
    assert held.collapsed == spilled.collapsed == ("a",)


def test_ids_and_times_are_checked_and_not_kept_where_a_store_is_given(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("id,t,a\nx,1,1\ny,2,2\n")
    options = FileOptions(id_column="id", timestamp_column="t")

    table = read_tables([path], options, store=RowStore())
    assert table.event_ids is None
    assert table.timestamps_ms is None
    path.write_text("id,t,a\nx,1,1\ny,noon,2\n")
    with pytest.raises(DataError, match="line 3: the time 't' is 'noon'"):
        read_tables([path], options, store=RowStore())


@pytest.fixture(scope="module")
def long_csv(tmp_path_factory):
    """A CSV file of more than one block, wrong in lines of the second."""
    path = tmp_path_factory.mktemp("long") / "long.csv"
    lines = [f"{row},0" for row in range(BLOCK_ROWS)]
    path.write_text("\n".join(["a,bad", *lines, "1e39,0", "-inf,0", "5,1"]) + "\n")
    return path


def test_places_in_messages_count_from_the_beginning_of_the_file(long_csv, tmp_path):
    second = f"line {BLOCK_ROWS + 2}, column 'a': 1e\\+39"

    with pytest.raises(DataError, match=r"holds 2 value\(s\) .* the first in " + second):
        read_tables([long_csv], FileOptions(label_column="bad"))
    parquet = tmp_path / "long.parquet"
    pq.write_table(pa.table({"a": [*range(BLOCK_ROWS), 0], "y": [*[0] * BLOCK_ROWS, 7]}), parquet)
    with pytest.raises(DataError, match=f"row {BLOCK_ROWS + 1:,}: the label 'y' is 7"):
        read_tables([parquet], FileOptions(label_column="y"))


def test_a_parquet_file_takes_little_memory_however_long_it_is(tmp_path):
    """256,000 rows of 40 numbers, 41 MB, as one group of rows: as some programs write them."""
    path = tmp_path / "long.parquet"
    numbers = np.random.default_rng(0).normal(size=(40, 256_000)).astype("f4")
    table = pa.table([*numbers], names=[f"x{place}" for place in range(40)])
    pq.write_table(table, path, row_group_size=10**9, use_dictionary=False)
    pool, before = pa.proxy_memory_pool(pa.default_memory_pool()), pa.default_memory_pool()
    pa.set_memory_pool(pool)
    tracemalloc.start()
    try:
        rows = read_tables([path], FileOptions(), store=in_scratch(tmp_path)).features
        peak_bytes = tracemalloc.get_traced_memory()[1] + pool.max_memory()
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(before)

    assert peak_bytes < 30e6
    np.testing.assert_array_equal(rows, numbers.T)


def test_a_parquet_column_that_is_dropped_is_not_even_read(tmp_path):
    path = tmp_path / "notes.parquet"
    pq.write_table(pa.table({"a": [1.0, 2.0], "note": ["long", "longer"]}), path)
    chunk = pq.read_metadata(path).row_group(0).column(1)
    with path.open("r+b") as file:
        file.seek(chunk.dictionary_page_offset)
        file.write(b"\xff" * chunk.total_compressed_size)

    table = read_tables([path], FileOptions(drop_columns=("note",)))
    assert table.features.tolist() == [[1], [2]]
    with pytest.raises(DataError, match="is no Parquet file"):
        read_tables([path], FileOptions(category_columns=("note",)))


# Integers near where float32 stops to tell them apart, and others.
integers = st.integers(-(2**54), 2**54) | st.integers(2**24 - 2, 2**24 + 8)
cells = st.one_of(integers.map(float), st.sampled_from([np.nan, 0.5, 1e30, 2.0**60]))


def collapses(column):
    """The definition, of a whole column."""
    values = np.unique(column[~np.isnan(column)])
    if (values != np.trunc(values)).any():
        return False
    return len(np.unique(values.astype(np.float32))) < len(values)


@given(st.lists(st.lists(st.tuples(cells, integers.map(float)), min_size=1), min_size=1))
def test_collapsed_integers_are_found_block_by_block(blocks):
    arrays = [np.array(block, np.float64) for block in blocks]
    rows, wide = np.concatenate(arrays), WideIntegers(["a", "b"])
    for block in arrays:
        wide.add(block)

    found = wide.collapsed(lambda place: rows[:, place].astype(np.float32))

    assert found == [name for name, column in zip("ab", rows.T, strict=True) if collapses(column)]


def test_a_path_to_scratch_may_be_relative(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = in_scratch(Path())
    store.append(np.ones((1, 1), np.float32))

    assert store.rows(1).tolist() == [[1]]
