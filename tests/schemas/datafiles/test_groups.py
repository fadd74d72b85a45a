"""A file's groups: read alike from every kind of file, and refused by place where they are none."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.contract import Feature
from schemas.datafiles import FileOptions, read_table, read_tables
from schemas.datafiles import groups as module
from schemas.datafiles.groups import GroupColumn, RowGroups
from schemas.errors import DataError
from tests.schemas.golden_records import CONTRACT, GROUPED

SITES = ["oslo", "17", "", "o,s\nlo", "oslo"]
ODD = ["é\u200b", " oslo ", "NA", "null", "x" * 256]
BY_SITE = FileOptions(group=GroupColumn("site"))
WANTED = [Feature(name="x", path=("x",))]


def csv_of(path, sites, column="site"):
    cells = ['"' + site.replace('"', '""') + '"' for site in sites]
    path.write_text(f"{column},x\n" + "".join(f"{cell},{i}\n" for i, cell in enumerate(cells)))
    return path


def parquet_of(path, sites):
    pq.write_table(pa.table({"site": sites, "x": [float(i) for i in range(len(sites))]}), path)
    return path


def json_of(path, sites):
    events = [{"site": site, "features": {"x": i}} for i, site in enumerate(sites)]
    path.write_text("\n".join(map(json.dumps, events)))
    return path


def npz_of(path, sites):
    x = np.arange(len(sites), dtype=np.float32)[:, None]
    np.savez(path, X=x, site=np.array(sites), feature_names=["x"])
    return path


FILES = {"csv": csv_of, "parquet": parquet_of, "jsonl": json_of, "npz": npz_of}


@pytest.mark.parametrize("kind", FILES)
def test_a_group_is_read_beside_the_features_from_every_kind_of_file(kind, tmp_path):
    path = FILES[kind](tmp_path / f"events.{kind}", SITES + ODD)
    for table in (read_table(path, BY_SITE), read_table(path, BY_SITE, WANTED)):
        assert table.names == ("x",)
        assert table.features[:, 0].tolist() == [*range(10)]
        assert [*table.groups.as_written()] == [site or None for site in SITES + ODD]
        assert table.groups.counts().tolist() == [2, 1, 1, 1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("kind", FILES)
def test_without_a_group_asked_for_there_is_none(kind, tmp_path):
    path = FILES[kind](tmp_path / f"events.{kind}", ["1", "2"])
    assert read_table(path, FileOptions(), WANTED).groups is None


def test_integers_and_nulls_are_groups_as_on_a_topic(tmp_path):
    parquet = tmp_path / "events.parquet"
    pq.write_table(pa.table({"site": [7, None, -1], "x": [1.0, 2.0, 3.0]}), parquet)
    lines = json_of(tmp_path / "events.jsonl", [7, None, -1])
    npz = tmp_path / "events.npz"
    np.savez(npz, X=np.ones((2, 1)), site=[7, -1])
    assert [*read_table(parquet, BY_SITE).groups.as_written()] == ["7", None, "-1"]
    assert [*read_table(lines, BY_SITE).groups.as_written()] == ["7", None, "-1"]
    assert [*read_table(npz, BY_SITE).groups.as_written()] == ["7", "-1"]


def test_several_files_share_their_groups_whatever_their_kind_and_order(tmp_path):
    paths = [
        csv_of(tmp_path / "a.csv", ["a", "b"]),
        json_of(tmp_path / "b.jsonl", ["b", "c"]),
        parquet_of(tmp_path / "c.parquet", ["c", "a"]),
    ]
    groups = read_tables(paths, BY_SITE).groups
    assert groups.texts == ("a", "b", "c")
    assert groups.codes.tolist() == [0, 1, 1, 2, 2, 0]


def test_a_group_in_a_json_event_stands_at_its_dotted_name_or_where_it_is_said_to(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text('{"a":{"b":"x"},"features":{"v":1,"b":"y"}}\n{"features":{"v":1,"b":3}}')
    feature = [Feature(name="v", path=("v",))]
    named = read_table(path, FileOptions(group=GroupColumn("a.b")), feature)
    assert [*named.groups.as_written()] == ["x", None]
    placed = read_table(path, FileOptions(group=GroupColumn("site", ("features", "b"))))
    assert [*placed.groups.as_written()] == ["y", "3"]
    assert placed.names == ("v",)  # Among the features' own places, and none of them.


TOO_LONG = "x" * 257
BAD = {
    "a fraction": ("parquet", [1.5, 2.0], "row 1: the group 'site' is 1.5; wanted a text of 1 to"),
    "a truth value": ("jsonl", ["a", True], "line 2: the group 'site' is True; wanted a text"),
    "a fraction in JSON": ("jsonl", [3.0], "line 1: the group 'site' is 3.0"),
    "an object": ("jsonl", [{}], "line 1: the group 'site' is {}"),
    "half a surrogate pair": ("jsonl", ["\ud800"], "line 1: the group 'site' is '\\ud800'"),
    "a very long text": ("csv", ["a", TOO_LONG], "line 3: the group 'site' is 'xxxxxx"),
    "fractions": ("npz", [0.5, 1.5], "row 1: the group 'site' is 0.5"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_group_is_refused_by_place_where_a_model_is_made(name, tmp_path):
    kind, sites, why = BAD[name]
    path = FILES[kind](tmp_path / f"events.{kind}", sites)
    with pytest.raises(DataError) as refused:
        read_table(path, BY_SITE)
    assert why in str(refused.value)
    # With a model there already, it is pooled, as on a topic.
    there = GroupColumn("site", strict=False)
    assert [*read_table(path, FileOptions(group=there)).groups.as_written()][-1] is None


def test_a_column_that_is_not_there_is_named_with_the_nearest_one(tmp_path):
    path = csv_of(tmp_path / "events.csv", ["a"], column="sites")
    with pytest.raises(DataError, match=r"has no column 'site'.*'sites'"):
        read_table(path, BY_SITE)


def test_a_million_groups_are_refused_early_but_for_scoring(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "TEXTS_MAX", 1_000)  # The real limit would take a large file.
    path = csv_of(tmp_path / "events.csv", map(str, range(1_001)))
    with pytest.raises(DataError, match="has more than 1,000 different texts; at most 1,024"):
        read_table(path, BY_SITE)
    there = GroupColumn("site", strict=False)
    assert len(read_table(path, FileOptions(group=there)).groups.texts) == 1_001


def test_codes_follow_another_list():
    groups = RowGroups(np.array([0, 2, -1, 1], np.int32), ("a", "b", "c"))
    assert groups.recoded(("c", "a")).tolist() == [1, 0, 2, 2]
    assert groups.rows(np.array([1, 2])).codes.tolist() == [2, -1]


def test_a_model_says_where_a_file_has_its_groups():
    assert GroupColumn.of(CONTRACT.groups) is None
    assert GroupColumn.of(GROUPED.groups) == GroupColumn("meta.shop", ("meta", "shop"), False)
