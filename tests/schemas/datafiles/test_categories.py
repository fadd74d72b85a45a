"""Categories in data files: told by name, the same from every kind of file, and never guessed."""

from __future__ import annotations

import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.contract import Feature
from schemas.datafiles import FileOptions, Table, read_table, read_tables, recoded
from schemas.errors import DataError
from tests.schemas.datafiles.test_files import jsonl, refusal, text

COLUMNS = {"a": [1.5, 2.5, None, 4.5], "port": ["80", None, "ssh", "80"]}
OPTIONS = FileOptions(category_columns=("port",))
FEATURES = [
    Feature(name="a", path=("a",)),
    Feature(name="port", path=("port",), kind="category", categories=("ssh", "telnet")),
]


def a_file(tmp_path, kind):
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in zip(*COLUMNS.values(), strict=True)]
    if kind == "csv":
        lines = [",".join("" if v is None else str(v) for v in row.values()) for row in rows]
        return text(tmp_path, "\n".join([",".join(COLUMNS), *lines]))
    if kind == "jsonl":
        return jsonl(tmp_path, *({"features": row} for row in rows))
    path = tmp_path / "events.parquet"
    held = pa.table(COLUMNS)
    if kind == "dictionary":
        held = held.set_column(1, "port", held["port"].dictionary_encode())
    elif kind != "parquet":
        held = held.set_column(1, "port", held["port"].cast(kind))
    pq.write_table(held, path)
    return path


KINDS = pytest.mark.parametrize(
    "kind", ["csv", "jsonl", "parquet", "dictionary", "large_string", "string_view"]
)


@KINDS
def test_a_column_of_texts_becomes_codes_of_what_the_file_holds(tmp_path, kind):
    table = read_table(a_file(tmp_path, kind), OPTIONS)

    assert table.names == ("a", "port")
    assert table.categories == {"port": ("80", "ssh")}
    np.testing.assert_array_equal(
        table.features, np.array([[1.5, 0], [2.5, np.nan], [np.nan, 1], [4.5, 0]], np.float32)
    )
    written = [[None if v != v else v for v in row] for row in table.as_written()]
    assert written == [list(row) for row in zip(*COLUMNS.values(), strict=True)]


@KINDS
def test_a_models_categories_give_their_codes_and_all_others_one_past_the_last(tmp_path, kind):
    table = recoded(
        read_table(a_file(tmp_path, kind), FileOptions(), FEATURES), {"port": ("ssh", "telnet")}
    )

    assert table.categories == {"port": ("ssh", "telnet")}
    np.testing.assert_array_equal(table.features[:, 1], [2, np.nan, 0, 2])


def test_integers_are_categories_as_their_decimal_text(tmp_path):
    path = tmp_path / "events.parquet"
    pq.write_table(pa.table({"a": [1.0, 2.0, 3.0], "port": [443, None, -1]}), path)
    lines = jsonl(tmp_path, {"features": {"a": 1, "port": 443}}, {"features": {"port": "-1"}})
    csv = text(tmp_path, "a,port\n1,443\n2,\n3,-1\n")

    for file in (path, lines, csv):
        assert read_table(file, OPTIONS).categories == {"port": ("443", "-1")}


def test_only_an_empty_cell_of_a_category_is_missing(tmp_path):
    path = text(tmp_path, "a,port\n1,NA\n2,null\n3, \n4,\n")

    table = read_table(path, OPTIONS)

    assert table.categories["port"] == ("NA", "null", " ")
    assert np.isnan(table.features[3, 1])


def test_several_files_share_one_list_whatever_the_order_of_their_texts(tmp_path):
    first = text(tmp_path, "a,port\n1,x\n2,y\n", "1.csv")
    second = text(tmp_path, "port,a\nz,3\ny,4\n,5\n", "2.csv")

    table = read_tables([first, second], OPTIONS)

    assert table.categories == {"port": ("x", "y", "z")}
    np.testing.assert_array_equal(
        table.features, np.array([[1, 0], [2, 1], [3, 2], [4, 1], [5, np.nan]], np.float32)
    )


def test_arrays_of_json_events_may_hold_categories(tmp_path):
    path = jsonl(tmp_path, {"features": [1, "x"]}, {"features": [2, None]}, {"features": [3, 7]})

    table = read_table(path, FileOptions(category_columns=("f1",)))

    assert table.categories == {"f1": ("x", "7")}


@given(st.lists(st.sampled_from("abcd")), st.permutations("abcd"), st.integers(0, 4))
def test_codes_follow_their_list(texts, order, known):
    seen = tuple(dict.fromkeys(texts))
    codes = np.array([seen.index(text) for text in texts] + [math.nan], np.float32)[:, None]
    table = Table(("c",), (("c",),), codes, categories={"c": seen})
    kept = order[:known]

    once = recoded(table, {"c": kept})

    wanted = [kept.index(text) if text in kept else len(kept) for text in texts]
    assert once.features[:-1, 0].tolist() == wanted
    assert np.isnan(once.features[-1, 0])
    again = recoded(once, {"c": kept[::-1]}).features[:-1, 0].tolist()
    assert again == [kept[::-1].index(text) if text in kept else len(kept) for text in texts]


def test_a_column_of_text_is_refused_with_every_way_out(tmp_path):
    error = refusal(text(tmp_path, "a,port\n1,ssh\n"))

    assert "line 2, column 'port': the text 'ssh'; wanted a number" in error
    assert "--category-column port" in error
    assert "--drop-column port" in error


@pytest.mark.parametrize(
    "cell",
    ["2026-01-31", "2026-01-31T12:00:00Z", "2026/1/31 12:00", "31.01.2026", "01/31/2026 12:00 PM"],
)
def test_a_date_in_a_number_column_is_called_one(tmp_path, cell):
    error = refusal(text(tmp_path, f"a,when\n1,{cell}\n"))

    assert f"column 'when': the text {cell!r}; wanted a number" in error
    assert "A date is no number. If it is the event's time, name it with --timestamp-col" in error
    assert "--category-column" not in error


@pytest.mark.parametrize("cell", ["10.0.0.1", "1.2.3", "12-34", "31.01.2026x", "v2026-01-31"])
def test_what_only_looks_a_little_like_a_date_is_not_called_one(tmp_path, cell):
    assert "A date" not in refusal(text(tmp_path, f"a,when\n1,{cell}\n"))


@pytest.mark.parametrize("kind", [pa.date32(), pa.timestamp("us"), pa.time32("s")])
def test_a_parquet_date_in_a_number_column_is_called_one(tmp_path, kind):
    path = tmp_path / "events.parquet"
    pq.write_table(
        pa.table(
            {
                "a": [1.0],
                "when": pa.array([1], pa.int32()).cast(pa.int64()).cast(kind)
                if pa.types.is_timestamp(kind)
                else pa.array([1], pa.int32()).cast(kind),
            }
        ),
        path,
    )

    assert "A date is no number" in refusal(path)


def test_a_category_of_a_million_texts_is_refused_before_they_fill_the_memory(tmp_path):
    csv = text(tmp_path, "a,port\n" + "\n".join(f"1,u{n}" for n in range(1_000_000)))

    error = refusal(csv, OPTIONS)

    assert "column 'port': more than 100,000 different texts; a category has at most 1,024" in error
    assert "--id-column port, or leave it out with --drop-column port" in error
    path = tmp_path / "events.parquet"
    pq.write_table(pa.table({"port": np.arange(1_000_000)}), path)
    assert "more than 100,000 different texts" in refusal(path, OPTIONS)


def test_a_model_scores_files_with_any_number_of_unseen_texts(tmp_path):
    path = tmp_path / "events.parquet"
    pq.write_table(pa.table({"a": np.zeros(100_001), "port": np.arange(100_001)}), path)

    table = recoded(read_table(path, FileOptions(), FEATURES), {"port": ("77",)})

    assert (table.features[:, 1] == 0).sum() == 1
    assert (table.features[:, 1] == 1).sum() == 100_000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"category_columns": ("prot",)}, "no column 'prot'; did you mean 'port'?"),
        (
            {"category_columns": ("port",), "drop_columns": ("port",)},
            "the column 'port' is named as a category and as something else",
        ),
        (
            {"category_columns": ("port",), "id_column": "port"},
            "the column 'port' is named as a category and as something else",
        ),
    ],
)
def test_a_category_that_is_none_is_refused(tmp_path, options, message):
    assert message in refusal(text(tmp_path, "a,port\n1,ssh\n"), FileOptions(**options))


def test_a_text_too_long_for_a_category_is_refused(tmp_path):
    error = refusal(text(tmp_path, f"a,port\n1,{'x' * 300}\n"), OPTIONS)

    assert "has 300 characters; a category has at most 256. Leave free text out" in error


@pytest.mark.parametrize(("column", "kind"), [([1.5, 2.0], "double"), ([True, False], "bool")])
def test_a_parquet_column_that_is_neither_text_nor_integers_is_no_category(tmp_path, column, kind):
    path = tmp_path / "events.parquet"
    pq.write_table(pa.table({"a": [1.0, 2.0], "port": column}), path)

    assert f"its type is {kind}; a category is text or integers" in refusal(path, OPTIONS)


def test_an_npz_file_holds_no_categories(tmp_path):
    path = tmp_path / "events.npz"
    np.savez(path, X=np.zeros((2, 2)), feature_names=["a", "port"])

    for error in (refusal(path, OPTIONS), refusal(path, wanted=FEATURES)):
        assert "an NPZ file, which holds numbers alone; wanted CSV, Parquet or JSON lines" in error


@pytest.mark.parametrize("value", [1.5, True, [1], "x" * 257])
def test_a_json_line_whose_category_is_none_is_refused_by_number(tmp_path, value):
    path = jsonl(tmp_path, {"features": {"a": 1, "port": "x"}}, {"features": {"port": value}})

    error = refusal(path, OPTIONS)

    assert "line 2: feature port is" in error
    assert "(bad_category)" in error


def test_a_text_among_json_numbers_is_refused_with_the_way_out(tmp_path):
    path = jsonl(tmp_path, {"features": {"port": 80}}, {"features": {"port": "ssh"}})

    assert "line 2: feature port is the text 'ssh'" in refusal(path)
    assert "name it with --category-column" in refusal(path)


def test_arrays_of_varying_length_are_refused_with_the_way_out(tmp_path):
    lines = [json.dumps({"features": list(range(n))}) for n in (3, 3, 2)]
    error = refusal(text(tmp_path, "\n".join(lines), "events.jsonl"))

    assert "line 3: 2 features" in error
    assert "Arrays of features have one length" in error
    assert "fill a shorter one up with null" in error


def test_files_whose_categories_differ_in_kind_are_told_by_their_contents(tmp_path):
    """A column that is a category in one file is one in all: the options say so, not the file."""
    first, second = text(tmp_path, "port\n1\n", "1.csv"), text(tmp_path, "port\nx\n", "2.csv")

    assert read_tables([first, second], OPTIONS).categories == {"port": ("1", "x")}
    with pytest.raises(DataError, match="--category-column port"):
        read_tables([first, second], FileOptions())
