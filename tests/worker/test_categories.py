"""Categories in the worker: read as `parse_event` reads them, scored as codes, shown as texts."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.contract import Contract, Feature
from schemas.dead_letter import Reason
from schemas.event import EventLayout, InvalidEvent, ParsedEvent, Path, parse_event
from schemas.packed_event import CONTENT_TYPE_HEADER, PACKED, encode_packed, is_code, parse_packed
from schemas.score import Score, UnscorableReason, decode_score
from tests.builders import (
    Recipe,
    a_contract,
    a_graph,
    a_model,
    a_sealed_model,
    an_event,
    records,
)
from tests.schemas.bad_events import BAD_CATEGORIES
from tests.worker.test_decode import LAYOUTS, VALUES, WRONG, as_float32, events, one_of, same
from worker import offline
from worker.decode import Decoder
from worker.model import Model, Scored
from worker.read_packed import PackedReader
from worker.results import to_results
from worker.turn import Records, Reject
from worker.typed_json import compile_reader

PROTOCOLS = ("icmp", "tcp", "udp")
STATUSES = ("200", "404", "é", "-1")


def features_of(paths: tuple[Path, ...]) -> tuple[Feature, ...]:
    """The first feature is a number, the others are categories."""
    lists = [(), PROTOCOLS, STATUSES]
    return tuple(
        Feature(
            name=".".join(path),
            path=path,
            kind="category" if categories else "number",
            categories=categories,
        )
        for path, categories in zip(paths, lists, strict=True)
    )


SHAPES = {name: shape for name, shape in LAYOUTS.items() if len(shape[1]) == 3}
CONTRACTS = {
    name: a_contract(Recipe(), a_graph(Recipe()), layout=layout, features=features_of(paths))
    for name, (layout, paths) in SHAPES.items()
}
DECODERS = {name: Decoder(contract) for name, contract in CONTRACTS.items()}

TEXTS = st.one_of(
    one_of('"tcp" "udp" "icmp" "TCP" "200" 200 "é" "\\u00e9" -1 "-1" -0 0 null "" 404.0 4e2 true'),
    st.text(max_size=3).map(json.dumps),
    st.integers(-(2**70), 2**70).map(str),
    st.sampled_from(['"' + "x" * 256 + '"', '"' + "x" * 257 + '"', '"' + "\U0001d11e" * 256 + '"']),
    WRONG,
)
NAMED_EVENTS = st.sampled_from([*SHAPES]).flatmap(
    lambda name: st.tuples(st.just(name), events(*SHAPES[name], (VALUES, TEXTS, TEXTS)))
)


def read_slowly(value: bytes, contract: Contract) -> ParsedEvent | InvalidEvent:
    try:
        return parse_event(value, contract.layout, contract.paths, contract.codes)
    except InvalidEvent as invalid:
        return invalid


@settings(max_examples=300, deadline=None)
@given(NAMED_EVENTS)
def test_an_event_with_categories_is_read_as_parse_event_reads_it(named):
    name, value = named
    contract = CONTRACTS[name]
    batch = DECODERS[name].decode(records([value]))
    event = read_slowly(value, contract)
    if isinstance(event, InvalidEvent):
        assert batch.rejects == [Reject(0, event.reason, event.detail)]
        return
    assert batch.rows == [0]
    assert same(batch.features[0], as_float32(event.features))
    assert batch.event_ids == [event.event_id or "events-0-0"]


@pytest.mark.parametrize("name", [name for name in SHAPES if not name.startswith("a feature")])
def test_the_fast_reader_takes_events_with_categories_itself(name):
    """Otherwise the property above would hold of a reader that takes nothing."""
    contract = CONTRACTS[name]
    layout = contract.layout
    read = compile_reader(layout, contract.paths, contract.codes)
    event: dict[str, Any] = {}
    for path, value in zip(contract.paths, (1.5, "udp", 404), strict=True):
        node = event
        for key in (*layout.features, *path)[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = value
    assert [*read(json.dumps(event).encode())[2]] == [1.5, 2, 1]


def test_the_fast_reader_takes_arrays_with_categories():
    read = compile_reader(EventLayout(), (("x0",), ("x1",), ("x2",)), CONTRACTS["default"].codes)
    assert [*read(b'{"features":[1,"tcp","never seen"]}')[2]] == [1, 1, 4]
    assert [*read(b'{"features":[null,null,"200"]}')[2]] == [None, None, 0]


def test_a_bad_category_is_a_reject_and_its_neighbours_are_events():
    contract = CONTRACTS["default"]
    good = b'{"features":[1,"tcp","200"]}'
    values = [value for value, _, _ in BAD_CATEGORIES.values()]
    batch = DECODERS["default"].decode(records([good, *values, good]))
    assert batch.rows == [0, len(values) + 1]
    assert [reject.reason for reject in batch.rejects] == [
        reason for _, reason, _ in BAD_CATEGORIES.values()
    ]
    assert batch.features.tolist() == [[1, 1, 0]] * 2
    assert not DECODERS["default"].scans
    assert contract.codes[0] is None


CODES = st.one_of(
    st.integers(-1, 6).map(float), st.floats(width=32, allow_infinity=False), st.just(math.nan)
)
PACKED_EVENTS = st.lists(st.tuples(st.floats(width=32, allow_infinity=False), CODES, CODES))


@settings(max_examples=200)
@given(PACKED_EVENTS)
def test_packed_codes_are_read_as_one_by_one_and_are_the_contracts(rows):
    codes = CONTRACTS["default"].codes
    values = [encode_packed(row) for row in rows]
    n = len(rows)
    taken = Records("events", [0] * n, [*range(n)], [0] * n, [None] * n, [*values], [None] * n)
    batch = PackedReader(3, codes).read(taken)
    kept, rejects = [], []
    for row, value in enumerate(values):
        try:
            kept.append(parse_packed(value, None, None, 3, codes).features)
        except InvalidEvent as invalid:
            rejects.append(Reject(row, invalid.reason, invalid.detail))
    assert batch.rejects == rejects
    np.testing.assert_array_equal(batch.features, np.array(kept, np.float32).reshape(-1, 3))
    good = [math.isnan(c) or c in (0, 1, 2, 3) for _, c, _ in rows]
    also = [math.isnan(c) or c in (0, 1, 2, 3, 4) for _, _, c in rows]
    assert batch.rows == [row for row in range(n) if good[row] and also[row]]


@pytest.mark.parametrize("code", [-1.0, 0.5, 4.0, 1e30, -0.5])
def test_a_packed_code_that_the_contract_does_not_have_is_a_dead_letter(code):
    with pytest.raises(InvalidEvent) as caught:
        parse_packed(struct.pack("<3f", 1, code, 0), None, None, 3, CONTRACTS["default"].codes)
    assert caught.value.reason == Reason.BAD_CATEGORY
    assert "wanted a category's code, a whole number from 0 to 3, or NaN" in caught.value.detail
    assert not is_code(code, 3)


MODEL = a_model(features=features_of((("x0",), ("x1",), ("x2",))))
REFUSING = a_model(
    features=(
        *MODEL.contract.features[:2],
        Feature(name="x2", path=("x2",), kind="category", categories=STATUSES, unseen="refuse"),
    )
)


def scores_of(values: list[bytes], model: Model = MODEL, expected: Any = None) -> list[Score]:
    taken = records(values)
    batch = model.decoder.decode(taken)
    scored = model.score(batch.features)
    if expected is not None:
        scored = scored._replace(expected=np.array([expected] * len(values), np.float32))
    outputs = to_results(taken, batch, scored, model, 5)
    return [decode_score(value or b"") for value in outputs.scores.values]


def test_a_flagged_category_is_shown_as_its_text_and_so_is_what_was_expected():
    (score,) = scores_of([an_event(50, "udp", "é")])
    tops = {top.name: (top.value, top.expected) for top in score.top_features}
    assert tops == {"x0": (50.0, 0.0), "x1": ("udp", "icmp"), "x2": ("é", "200")}


@pytest.mark.parametrize("written", ["never seen", 503])
def test_an_unseen_category_is_shown_as_the_event_has_it(written):
    named = json.dumps({"features": {"x0": 50, "x2": written}}).encode()
    for value in (an_event(50, None, written), named):
        (score,) = scores_of([value])
        tops = {top.name: top.value for top in score.top_features}
        assert tops == {"x0": 50.0, "x2": str(written)}


def test_an_unseen_category_of_a_packed_event_has_no_text():
    taken = records([encode_packed([50, 1, 4])])
    taken.headers[0] = [(CONTENT_TYPE_HEADER, PACKED)]
    batch = MODEL.decoder.decode(taken)
    outputs = to_results(taken, batch, MODEL.score(batch.features), MODEL, 5)
    tops = {t.name: t.value for t in decode_score(outputs.scores.values[0] or b"").top_features}
    assert tops == {"x0": 50.0, "x1": "tcp", "x2": None}


@pytest.mark.parametrize(
    ("expected", "text"), [(-2.0, "icmp"), (0.4, "icmp"), (1.6, "udp"), (3.0, None), (1e30, None)]
)
def test_what_a_graph_expects_is_shown_as_the_nearest_category(expected, text):
    (score,) = scores_of([an_event(50, "udp", "é")], expected=(0.0, expected, 0.0))
    assert {top.name: top.expected for top in score.top_features}["x1"] == text


def test_an_unseen_category_whose_policy_refuses_it_is_unscorable():
    taken = records([an_event(1, "tcp", "never seen"), an_event(1, None, None)])
    batch = REFUSING.decoder.decode(taken)
    nothing = np.full((2, 3), np.nan, np.float32)  # As the format asks of the graph.
    scored = Scored(nothing[:, 0], nothing, nothing)
    outputs = to_results(taken, batch, scored, REFUSING, 5)
    first, second = (decode_score(value or b"") for value in outputs.scores.values)
    assert (first.verdict, first.reason) == ("unscorable", UnscorableReason.UNSEEN_REFUSED)
    assert second.reason == UnscorableReason.ALL_MISSING


def test_json_and_packed_events_of_the_same_categories_have_the_same_score():
    texts = scores_of([an_event(1, "udp", "404"), an_event(2, "?", None)])
    taken = records([encode_packed([1, 2, 1]), encode_packed([2, 3, math.nan])])
    batch = MODEL.decoder.decode(taken, "packed")
    assert batch.features.shape == (2, 3)
    assert [score.score for score in texts] == MODEL.score(batch.features).scores.tolist()


@pytest.fixture
def model_path(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(a_sealed_model(features=MODEL.contract.features))
    return path


def test_a_file_of_texts_is_scored_as_its_events_on_a_topic_would_be(model_path, tmp_path, capsys):
    path = tmp_path / "events.csv"
    path.write_text("x2,x0,x1\n404,50,udp\nnever seen,50,\n,0.1,tcp\n")
    assert offline.score([str(model_path), str(path)]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    wanted = scores_of(
        [an_event(50, "udp", "404"), an_event(50, None, "never seen"), an_event(0.1, "tcp", None)]
    )
    assert [line["score"] for line in lines] == [score.score for score in wanted]
    assert {top["name"]: top["value"] for top in lines[1]["top_features"]} == {
        "x0": 50.0,
        "x2": "never seen",
    }
