"""Reading JSON lines: the features are found, and a line that is no event is named."""

from __future__ import annotations

import numpy as np
import pytest

from schemas.datafiles import FileOptions, read_table
from schemas.event import EventLayout
from tests.schemas.datafiles.test_files import ROWS, jsonl, refusal


def test_features_of_json_events_are_found_below_the_layouts_path(tmp_path):
    path = jsonl(
        tmp_path,
        {"event_id": "e1", "features": {"a": 1.5, "in": {"b": -2}, "text": "x", "on": True}},
        "",
        {"event_id": "e2", "timestamp": 5, "features": {"a": None, "in": {"b": 4, "c": 1}}},
    )

    table = read_table(path, FileOptions())

    assert table.names == ("a", "in.b", "in.c")
    assert table.paths == (("a",), ("in", "b"), ("in", "c"))
    np.testing.assert_array_equal(table.features, [[1.5, -2, np.nan], [np.nan, 4, 1]])
    assert table.event_ids == ["e1", "e2"]
    assert table.timestamps_ms is None


def test_at_the_top_of_an_event_its_other_parts_are_no_features(tmp_path):
    path = jsonl(tmp_path, {"event_id": 7, "timestamp": 5, "bad": 1, "a": 1, "skip": 2, "b": 2})
    options = FileOptions(
        label_column="bad", drop_columns=("skip",), layout=EventLayout(features=())
    )

    table = read_table(path, options)

    assert table.names == ("a", "b")
    assert table.labels.tolist() == [True]


def test_arrays_of_features_are_numbered(tmp_path):
    path = jsonl(tmp_path, {"features": [1.5, -2]}, {"features": [None, 4]}, {"features": [5, 6]})

    table = read_table(path, FileOptions())

    assert table.names == ("f0", "f1")
    np.testing.assert_array_equal(table.features, ROWS)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: not JSON"),
        ("[1]", "line 2: the JSON is an array; wanted an object"),
        ('{"features": {"a": "1"}}', "feature a is the text '1'"),
        ('{"features": {"a": true}}', "feature a is a boolean"),
        ('{"features": {"a": 1e39}}', "beyond a 32-bit float"),
        ('{"features": {"a": NaN}}', "the JSON holds NaN"),
        ('{"features": 3}', "line 2: no object or array of features at features"),
        ("{}", "Say where they stand with --features-path"),
        ('{"features": {"a": 1}, "timestamp": "noon"}', "the timestamp is a string"),
    ],
)
def test_a_line_that_is_no_event_is_refused_by_number(tmp_path, line, message):
    assert message in refusal(jsonl(tmp_path, {"features": {"a": 1}}, line))


def test_json_events_have_no_columns(tmp_path):
    path = jsonl(tmp_path, {"features": {"a": 1}})

    assert "with --event-id-path" in refusal(path, FileOptions(id_column="id"))
    assert "with --timestamp-path" in refusal(path, FileOptions(timestamp_column="t"))
    assert "no column 'b'" in refusal(path, FileOptions(drop_columns=("b",)))
    assert "the label 'bad' is None" in refusal(path, FileOptions(label_column="bad"))


def test_json_events_without_numbers_are_refused(tmp_path):
    path = jsonl(tmp_path, {"features": {"a": "text"}})

    assert "holds no number below features" in refusal(path)


def test_two_features_of_one_name_are_refused(tmp_path):
    path = jsonl(tmp_path, {"features": {"a.b": 1, "a": {"b": 2}}})

    assert "two features that would both be named 'a.b'" in refusal(path)


def test_what_is_never_a_number_is_named_and_ignored(tmp_path):
    lines = ['{"features": {"a": 1, "c": "0.31", "d": {"e": null}}}', '{"features": {"a": 2}}']
    path = tmp_path / "events.jsonl"
    path.write_text("\n".join(lines))
    table = read_table(path, FileOptions())
    assert table.names == ("a",)
    assert table.ignored == ("c", "d.e")
