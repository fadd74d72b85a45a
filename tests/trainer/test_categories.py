"""What a model will know of its categories, and what is said of columns that are none."""

from __future__ import annotations

import numpy as np
import pytest

from schemas.contract import Feature
from schemas.datafiles import FileOptions, Table
from schemas.errors import DataError, SettingsError
from tests.trainer.test_main import fails
from trainer.categories import CATEGORY_ROWS_MIN, know_categories
from trainer.data import load, rows_digest, unseen_policies
from trainer.evaluate import read_labelled
from trainer.narrate import say_what_was_read

# 40 rows of tcp, 30 of udp, 12 of icmp and 3 of gre; 5 have none; two anomalies are of esp.
PROTOCOLS = ["udp"] * 30 + ["tcp"] * 40 + ["gre"] * 3 + ["icmp"] * 12 + [""] * 5 + ["esp"] * 2
OPTIONS = FileOptions(category_columns=("protocol",), label_column="bad")


@pytest.fixture
def connections(tmp_path):
    path = tmp_path / "connections.csv"
    rng = np.random.default_rng(0)
    lines = [
        f"{protocol},{rng.normal()},{rng.normal()},{int(protocol == 'esp')}"
        for protocol in PROTOCOLS
    ]
    path.write_text("\n".join(["protocol,bytes,packets,bad", *lines]) + "\n")
    return path


def a_column(counts):
    """A table of one category with so many rows of each text."""
    codes = [code for code, count in enumerate(counts.values()) for _ in range(count)]
    features = np.array([codes], np.float32).T
    return Table(("c",), (("c",),), features, categories={"c": tuple(counts)})


def test_frequent_texts_are_known_and_rare_ones_have_the_code_of_an_unseen_one(connections):
    table, policies, quality = load([connections], OPTIONS, {})

    assert table.categories == {"protocol": ("icmp", "tcp", "udp")}
    codes = [{"icmp": 0, "tcp": 1, "udp": 2, "gre": 3, "": np.nan}.get(p) for p in PROTOCOLS[:-2]]
    np.testing.assert_array_equal(table.features[:, 0], codes)
    rows = quality.categories["protocol"]
    assert rows.known == (12, 40, 30)
    assert (rows.rare_texts, rows.rare_rows, rows.missing_rows) == (1, 3, 5)
    assert policies == ("mask",) * 3
    assert quality.missing_values == 5


def test_where_unseen_texts_are_refused_every_text_of_a_normal_row_is_known(connections):
    table, _, quality = load([connections], OPTIONS, {}, {"protocol": "refuse"})

    assert table.categories == {"protocol": ("gre", "icmp", "tcp", "udp")}
    assert quality.categories["protocol"].rare_rows == 0


def test_the_known_texts_do_not_depend_on_the_order_of_the_rows(connections, tmp_path):
    header, *lines = connections.read_text().splitlines()
    turned = tmp_path / "turned.csv"
    turned.write_text("\n".join([header, *lines[::-1]]))

    first, second = load([connections], OPTIONS, {})[0], load([turned], OPTIONS, {})[0]

    assert first.categories == second.categories
    np.testing.assert_array_equal(first.features, second.features[::-1])


def test_a_policy_for_a_number_is_a_mistake(connections):
    table, _, _ = load([connections], OPTIONS, {})

    with pytest.raises(SettingsError, match="the feature 'bytes' is a number, of which none is"):
        unseen_policies(table, {"bytes": "refuse"})
    with pytest.raises(SettingsError, match=r"no feature is named 'proto'; did you mean 'protoc"):
        unseen_policies(table, {"proto": "refuse"})
    assert unseen_policies(table, {"*": "refuse"}) == {"protocol": "refuse"}


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({}, "no usable row has a text for the category 'c'"),
        (dict.fromkeys(map(str, range(2000)), 1), "none in 10 rows or more, of 2,000 different"),
        (dict.fromkeys(map(str, range(1025)), 10), "1,025 in 10 rows or more, of 1,025 different"),
    ],
)
def test_a_column_that_hardly_repeats_itself_is_no_category(counts, message):
    with pytest.raises(DataError) as refused:
        know_categories(a_column(counts), {"c": "other"})
    assert message in str(refused.value)
    assert "--drop-column c" in str(refused.value)


def test_the_most_categories_that_there_may_be_are_known():
    table, rows = know_categories(
        a_column(dict.fromkeys(map(str, range(1024)), CATEGORY_ROWS_MIN)), {"c": "other"}
    )
    assert len(table.categories["c"]) == len(rows["c"].known) == 1024


def test_lists_too_long_for_a_contract_are_refused_before_training(monkeypatch):
    monkeypatch.setattr("schemas.category.CATEGORY_CHARS_TOTAL_MAX", 5)
    with pytest.raises(DataError, match="the training data: its categories have 6 characters"):
        know_categories(a_column({"abc": 10, "def": 10}), {"c": "other"})


def test_the_digest_of_the_rows_covers_what_their_codes_mean():
    tables = [a_column({"a": 1, "b": 1}), a_column({"a": 1, "c": 1}), a_column({"b": 1, "a": 1})]
    assert len({rows_digest(table) for table in tables}) == 3


def test_labelled_events_have_the_codes_of_the_model(connections):
    features = [
        Feature(name="bytes", path=("bytes",)),
        Feature(name="protocol", path=("protocol",), kind="category", categories=("tcp", "esp")),
    ]

    table = read_labelled(connections, features, FileOptions(label_column="bad"))

    codes = [{"tcp": 0, "esp": 1, "": np.nan}.get(protocol, 2) for protocol in PROTOCOLS]
    np.testing.assert_array_equal(table.features[:, 1], codes)


def test_what_is_known_of_a_category_is_said(connections, capsys):
    table, _, quality = load([connections], OPTIONS, {})

    say_what_was_read(table, quality)

    said = capsys.readouterr().err
    assert "the category 'protocol' has 3 known texts; 1 rarer ones, in 3 rows, count as" in said


def test_a_category_that_was_not_named_is_refused_with_the_way_out(connections, tmp_path, capsys):
    error = fails(capsys, "fit", connections, "--out", tmp_path / "m.onnx")

    assert "line 2, column 'protocol': the text 'udp'" in error
    assert "name it with --category-column protocol" in error


def test_a_category_has_no_transform_to_choose(connections, tmp_path, capsys):
    flags = ["--category-column", "protocol", "--label-column", "bad"]
    flags += ["--set", "transforms=protocol:asinh"]

    error = fails(capsys, "fit", connections, "--out", tmp_path / "m.onnx", *flags)

    assert "the feature 'protocol' is a category, whose texts have no transform; wanted a" in error


def test_a_sequence_of_varying_length_is_ignored_with_the_way_out(tmp_path, capsys):
    path = tmp_path / "events.jsonl"
    lines = [f'{{"features":{{"a":{n},"trace":{[1] * (n % 3)}}}}}' for n in range(9)]
    path.write_text("\n".join(lines))

    error = fails(capsys, "fit", path, "--out", tmp_path / "m.onnx")

    assert "trace among the features never holds a number, and is ignored" in error
    assert "a sequence as one for each place, as many in every event" in error


def test_a_text_among_json_events_is_ignored_with_the_way_out(tmp_path, capsys):
    path = tmp_path / "events.jsonl"
    path.write_text("\n".join(f'{{"features":{{"a":{n},"port":"ssh"}}}}' for n in range(9)))

    error = fails(capsys, "fit", path, "--out", tmp_path / "m.onnx")

    assert "port among the features never holds a number, and is ignored" in error
    assert "or name it with --category-column port if it is a category" in error
