"""Reading data files: what they hold comes out, and each way of being wrong has its message."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.contract import Feature
from schemas.datafiles import FileOptions, read_table, read_tables
from schemas.errors import DataError
from schemas.event import EventLayout

ROWS = np.array([[1.5, -2], [np.nan, 4], [5, 6]], np.float32)


def text(tmp_path, content, name="events.csv"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def jsonl(tmp_path, *events):
    lines = [event if isinstance(event, str) else json.dumps(event) for event in events]
    return text(tmp_path, "\n".join(lines) + "\n", "events.jsonl")


def refusal(path, options=None, wanted=None):
    with pytest.raises(DataError) as caught:
        read_table(path, options or FileOptions(), wanted)
    return str(caught.value)


def features(*names):
    return [Feature(name=name, path=tuple(name.split("."))) for name in names]


def test_a_csv_file_gives_its_columns(tmp_path):
    path = text(tmp_path, "id,a,when,b,bad\ne1,1.5,10,-2,0\n\ne2,,20,4,1\ne3,5,30,6,normal\n")
    options = FileOptions(label_column="bad", id_column="id", timestamp_column="when")

    table = read_table(path, options)

    assert table.names == ("a", "b")
    assert table.paths == (("a",), ("b",))
    assert table.features.dtype == np.float32
    np.testing.assert_array_equal(table.features, ROWS)
    assert table.labels.tolist() == [False, True, False]
    assert table.event_ids == ["e1", "e2", "e3"]
    assert table.timestamps_ms == [10, 20, 30]


@pytest.mark.parametrize("missing", ["", " ", "NaN", "nan", "null", "NA"])
def test_what_counts_as_missing_in_csv(tmp_path, missing):
    table = read_table(text(tmp_path, f"a,b\n{missing},1\n"), FileOptions())

    assert np.isnan(table.features[0, 0])


def test_wanted_features_are_picked_by_name_in_their_order(tmp_path):
    path = text(tmp_path, "\ufeffb,junk,a\n-2,x,1.5\n4,y,\n6,z,5\n")

    table = read_table(path, FileOptions(), features("a", "b"))

    assert table.names == ("a", "b")
    np.testing.assert_array_equal(table.features, ROWS)


def test_a_parquet_file_gives_the_same_as_csv(tmp_path):
    path = tmp_path / "events.parquet"
    columns = {
        "id": ["e1", "e2", "e3"],
        "a": [1.5, None, 5.0],
        "when": ["1970-01-01T00:00:01Z"] * 3,
        "b": [-2, 4, 6],
        "bad": [False, True, False],
    }
    pq.write_table(pa.table(columns), path)
    layout = EventLayout(timestamp_kind="rfc3339")
    options = FileOptions(
        label_column="bad", id_column="id", timestamp_column="when", layout=layout
    )

    table = read_table(path, options)

    assert table.names == ("a", "b")
    np.testing.assert_array_equal(table.features, ROWS)
    assert table.labels.tolist() == [False, True, False]
    assert table.event_ids == ["e1", "e2", "e3"]
    assert table.timestamps_ms == [1000] * 3


def test_an_npz_file_is_flattened_numbered_and_labelled(tmp_path):
    path = tmp_path / "events.npz"
    np.savez(path, hits=np.arange(12).reshape(2, 3, 2), y=[0, 1], ids=["u", "v"])

    table = read_table(path, FileOptions(array="hits", id_column="ids"))

    assert table.names == ("f0", "f1", "f2", "f3", "f4", "f5")
    np.testing.assert_array_equal(table.features, np.arange(12).reshape(2, 6))
    assert table.labels.tolist() == [False, True]
    assert table.event_ids == ["u", "v"]


def test_an_npz_file_may_name_its_features(tmp_path):
    path = tmp_path / "events.npz"
    np.savez(path, X=ROWS, feature_names=["a", "b"])

    assert read_table(path, FileOptions()).names == ("a", "b")
    assert read_table(path, FileOptions(), features("b")).features.tolist() == [[-2], [4], [6]]
    assert read_table(path, FileOptions(drop_columns=("a",))).names == ("b",)


def test_an_npz_file_without_names_is_matched_by_count(tmp_path):
    path = tmp_path / "events.npz"
    np.savez(path, X=ROWS)

    assert read_table(path, FileOptions(), features("p", "q")).names == ("p", "q")
    assert "an event has 2 numbers; the model wants 3" in refusal(
        path, wanted=features("p", "q", "r")
    )


def test_several_files_are_one_table_whatever_the_order_of_their_columns(tmp_path):
    first = text(tmp_path, "a,b,y\n1.5,-2,0\n,4,1\n", "1.csv")
    second = text(tmp_path, "y,b,a\n0,6,5\n", "2.csv")

    table = read_tables([first, second], FileOptions(label_column="y"))

    np.testing.assert_array_equal(table.features, ROWS)
    assert table.labels.tolist() == [False, True, False]


def test_files_of_other_columns_are_refused(tmp_path):
    first, second = text(tmp_path, "a,b\n1,2\n", "1.csv"), text(tmp_path, "a,c\n1,2\n", "2.csv")

    with pytest.raises(DataError, match="do not hold the same features: only one of them has 'b'"):
        read_tables([first, second], FileOptions())


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("", {}, "is empty; wanted events"),
        ("a,b\n", {}, "holds no events"),
        ("a,b,a\n1,2,3\n", {}, "several columns named 'a'"),
        ("a;b\n1;2\n", {}, "separates its columns by tabs or semicolons"),
        ("1,2\n3,4\n", {}, "begins with a line of numbers"),
        ("a,b\n1,2\n3\n", {}, "line 3: 1 cells; wanted 2"),
        ("a,b\n1,2\n3,4,5\n", {}, "line 3: 3 cells; wanted 2"),
        ("a,b\n1,2\n3,cat\n", {}, "line 3, column 'b': the text 'cat'; wanted a number"),
        ("a,b\n1,2\n3,cat\n", {}, "--drop-column b"),
        ("a,b\n1,inf\n3,-inf\n", {}, "2 value(s) that are infinite"),
        ("a,b\n1,2\n3,1e39\n", {}, "the first in line 3, column 'b': 1e+39"),
        ("colour,b\n1,2\n", {"label_column": "color"}, "no column 'color'; did you mean 'colour'"),
        (",a\n0,2\n", {}, "a column without a name"),
        ("a,b\n1,2\n", {"drop_columns": ("c",)}, "no column 'c'. Its columns: a, b"),
        ("a,b\n1,2\n", {"drop_columns": ("a", "b")}, "no column left to be a feature"),
        ("a,y\n1,2\n", {"label_column": "y"}, "line 2: the label 'y' is '2'; wanted 0, false"),
        ("a,y\n1,\n", {"label_column": "y"}, "the label 'y' is ''"),
        ("a,t\n1,noon\n", {"timestamp_column": "t"}, "the time 't' is 'noon'; wanted epoch ms"),
        ("a,t\n1,\n", {"timestamp_column": "t"}, "the time 't' is ''"),
        ("a,b\n3,4,5\n", {}, "as in the first line. Nothing of the file was used"),
        (b"a,b\n1,2\n\xff\xfe,2\n", {}, "line 3: the byte 0xff is not UTF-8; wanted CSV in UTF-8"),
        (b"a,b\n" + b"1,2\n" * 9000 + b"1,\xe9\n", {}, "line 9,002: the byte 0xe9 is not UTF-8"),
        (b"caf\xe9,b\n1,2\n", {}, "line 1: the byte 0xe9"),
        ("a,b\n1,2\n1,\x00\n", {}, "line 3, column 'b': a NUL byte, '\\x00'; wanted CSV in UTF-8"),
        ('a,b\n"1,2\n', {}, "line 2: unexpected end of data; wanted CSV"),
    ],
)
def test_a_wrong_csv_file_is_refused(tmp_path, content, options, message):
    error = refusal(text(tmp_path, content), FileOptions(**options))

    assert message in error
    assert "events.csv" in error


def test_a_wanted_feature_that_is_missing_is_named_with_the_nearest(tmp_path):
    path = text(tmp_path, "energy,b\n1,2\n")

    assert "no column 'enery'; did you mean 'energy'?" in refusal(path, wanted=features("enery"))


def test_files_that_are_no_files_are_refused(tmp_path):
    assert "No such file" in refusal(tmp_path / "absent.csv")
    assert "Is a directory" in refusal(make_folder(tmp_path / "folder.csv"))
    assert "wanted a name that ends in .csv, .parquet, .npz" in refusal(tmp_path / "events.xlsx")


def make_folder(path):
    path.mkdir()
    return path


def test_a_parquet_file_that_is_none_is_refused(tmp_path):
    assert "is no Parquet file" in refusal(text(tmp_path, "a,b\n1,2\n", "events.parquet"))


@pytest.mark.parametrize(
    ("column", "kind"), [(["x", "y"], "string"), ([True, False], "bool"), ([[1], [2]], "list")]
)
def test_a_parquet_column_that_is_no_number_is_refused(tmp_path, column, kind):
    path = tmp_path / "events.parquet"
    pq.write_table(pa.table({"a": [1.0, 2.0], "b": column}), path)

    error = refusal(path)

    assert "column 'b': its type is " + kind in error
    assert "--drop-column b" in error


@pytest.mark.parametrize(
    ("arrays", "options", "message"),
    [
        ({"Z": ROWS}, {}, "no array 'X'; it holds Z. Name the events' array with --array"),
        ({"X": np.array([{}, {}], object)}, {}, "not unpickled: fill shorter rows up with NaN"),
        ({"X": np.array(["a", "b"])}, {}, "wanted numbers, one event a row"),
        ({"X": np.array([True, False])}, {}, "is bool"),
        ({"X": np.array(3.0)}, {}, "0 dimension(s)"),
        ({"X": np.empty((0, 3))}, {}, "holds no events"),
        ({"X": ROWS, "y": [0, 1]}, {}, "2 values in 'y' for 3 events"),
        ({"X": ROWS, "y": [0, 1, 3]}, {}, "row 3: the label 'y' is 3"),
        ({"X": ROWS, "feature_names": ["a"]}, {}, "1 names in 'feature_names' for 2"),
        ({"X": [[1, np.inf]]}, {}, "the first in row 1, column 'f1': inf"),
        ({"X": np.array([[1, np.inf]], np.float32)}, {}, "1 value(s) that are infinite"),
        ({"X": [[1, 2]]}, {"label_column": "lab"}, "no array 'lab'"),
    ],
)
def test_a_wrong_npz_file_is_refused(tmp_path, arrays, options, message):
    path = tmp_path / "events.npz"
    np.savez(path, **arrays)

    assert message in refusal(path, FileOptions(**options))


def test_a_file_that_only_calls_itself_npz_is_refused(tmp_path):
    path = tmp_path / "events.npz"
    np.savez(path, X=np.arange(4000.0))
    whole = path.read_bytes()
    np.save(tmp_path / "plain.npy", ROWS)

    for content in (b"a,b\n1,2\n", whole[: len(whole) // 2], (tmp_path / "plain.npy").read_bytes()):
        path.write_bytes(content)
        assert "is no NPZ file of plain arrays" in refusal(path)
    damaged = bytearray(whole)
    damaged[2000] ^= 0xFF
    path.write_bytes(damaged)
    assert "is no NPZ file of plain arrays" in refusal(path)


def test_an_optional_label_may_be_absent(tmp_path):
    options = FileOptions(label_column="bad", label_optional=True)
    np.savez(tmp_path / "events.npz", X=ROWS)
    pq.write_table(pa.table({"a": [1.0]}), tmp_path / "events.parquet")

    for path in (
        text(tmp_path, "a,b\n1,2\n"),
        jsonl(tmp_path, {"features": {"a": 1}}),
        tmp_path / "events.npz",
        tmp_path / "events.parquet",
    ):
        assert read_table(path, options).labels is None
    assert read_table(text(tmp_path, "a,bad\n1,1\n"), options).labels.tolist() == [True]
