"""The worker's readers and `parse_event` are one reading of an event; nothing falls between."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.contract import Contract, Feature
from schemas.dead_letter import Reason
from schemas.event import EVENT_BYTES_MAX, EventLayout, InvalidEvent, ParsedEvent, Path, parse_event
from tests.builders import Recipe, a_contract, a_graph, an_event, records
from worker.decode import Decoder
from worker.read_json import JsonReader
from worker.turn import Batch, Reject
from worker.typed_json import compile_reader

FLAT: tuple[Path, ...] = (("x0",), ("x1",), ("x2",))
LAYOUTS: dict[str, tuple[EventLayout, tuple[Path, ...]]] = {
    "default": (EventLayout(), FLAT),
    "seconds": (EventLayout(timestamp_kind="s"), FLAT),
    "rfc3339": (EventLayout(timestamp_kind="rfc3339"), FLAT),
    "one feature": (EventLayout(), (("x0",),)),
    "nested": (
        EventLayout(
            event_id=("meta", "id"),
            timestamp=("meta", "at"),
            timestamp_kind="s",
            features=("payload", "values"),
        ),
        (("x0",), ("deep", "x1"), ("deep", "er", "x2")),
    ),
    "root": (
        EventLayout(timestamp=("at",), timestamp_kind="rfc3339", features=()),
        (("x0",), ("deep", "x1"), ("x2",)),
    ),
    "id and time among the features": (
        EventLayout(event_id=("data", "id"), timestamp=("data", "at"), features=("data",)),
        FLAT,
    ),
    "id below the features": (
        EventLayout(event_id=("a", "b", "c", "id"), timestamp=("a", "at"), features=("a", "b")),
        FLAT,
    ),
    "a feature is the id": (EventLayout(features=()), (("event_id",), ("x1",), ("x2",))),
    "a feature below another": (EventLayout(), (("x0",), ("x0", "x1"), ("x2",))),
}


def a_contract_of(layout: EventLayout, paths: Sequence[Path]) -> Contract:
    recipe = Recipe(features=len(paths))
    return a_contract(
        recipe,
        a_graph(recipe),
        layout=layout,
        features=tuple(Feature(name=".".join(path), path=path) for path in paths),
    )


CONTRACTS = {name: a_contract_of(*shape) for name, shape in LAYOUTS.items()}
DECODERS = {name: Decoder(contract) for name, contract in CONTRACTS.items()}
# Without the scanner, as where no compiler was at hand.
PLAIN = {name: JsonReader(contract, None) for name, contract in CONTRACTS.items()}


# Texts that stand where a value belongs. Near-valid ones find more than random ones.
def one_of(text: str) -> st.SearchStrategy[str]:
    """Any of the words; quicker to read than a list of strings with strings in them."""
    return st.sampled_from([*text.split()])


NUMBERS = st.one_of(
    one_of(
        """0 -0 -0.0 1 -1 1.5 1e5 1E-5 1e39 -1e39 1e400 -1e400 1e-400 5e-324 1e-46 3.4028235e38
        3.4028235677973366e38 3.4028235677973362e38 -3.4028235677973366e38 0.1 16777217
        123456789012345678901234567890 9007199254740993
        340282356779733661637539395458142568448 340282356779733661637539395458142568447"""
    ),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.floats(width=32, allow_nan=False, allow_infinity=False).map(repr),
    st.integers(-(2**70), 2**70).map(str),
)
WRONG = st.one_of(
    one_of(
        r"""null null true false "1.5" "" "NaN" NaN Infinity -Infinity 01 +1 1. .5 1e 0x1 -
        [] {} [1] [[1]] {"x0":1} nul "\ud800" "\ud83d\ude00" "\x" '1' 1_000"""
    ),
    st.sampled_from(
        ["", '"\n"', "1" * 300, "-" + "1" * 300, "1" * 310, "-" + "1" * 400, "1" * 5000]
    ),
)
VALUES = st.one_of(NUMBERS, NUMBERS, NUMBERS, WRONG)
IDS = st.one_of(
    st.text(max_size=5).map(json.dumps),
    st.text(max_size=5).map(lambda text: json.dumps(text, ensure_ascii=False)),
    one_of("1.0 -0 9223372036854775808 -9223372036854775809"),
    st.sampled_from(['"' + "i" * 512 + '"', '"' + "i" * 513 + '"', '"' + "\U0001d11e" * 300 + '"']),
    st.integers(-(2**65), 2**65).map(str),
    WRONG,
)
TIMES = st.one_of(
    one_of(
        """0 -1 -0.4 0.4 0.5 1.5 1700000000000 1700000000000.5 253402300799999
        253402300799999.4 253402300800000 253402300800 1e12 1e300 1e-300 -0.0"""
    ),
    st.datetimes().map(lambda moment: f'"{moment.isoformat()}Z"'),
    st.sampled_from(
        [
            '"2026-01-31T12:00:00Z"',
            '"2026-01-31t12:00:00.123456789z"',
            '"2026-01-31 12:00:00+05:30"',
            '"2026-01-31T12:00:00"',
            '"2026-01-31"',
            '"1969-12-31T23:59:59Z"',
            '"2026-W05-6T12:00:00Z"',
            '"2026-02-30T12:00:00Z"',
            '"0001-01-01T00:00:00+23:59"',
        ]
    ),
    st.integers(0, 2**60).map(str),
    WRONG,
)
JUNK = st.sampled_from(['"junk":1', '"junk":{"a":[null]}', '"":[]', '"junk":"\\u0000"', '"x9":"y"'])
SPACE = st.sampled_from(["", "", "", " ", "\n\t", "\x0b", "\ufeff"])

Pairs = list[tuple[Path, str]]


@st.composite
def events(
    draw, layout: EventLayout, paths: Sequence[Path], values: Sequence[st.SearchStrategy[str]] = ()
) -> bytes:
    """Bytes that are nearly always JSON, mostly an event, and often a bad one.

    `values` are what stands in each feature's place, if not all are numbers.
    """
    values = values or [VALUES] * len(paths)
    of = dict(zip(paths, values, strict=True))
    pairs: Pairs = []
    if draw(st.booleans()):
        pairs.append((layout.event_id, draw(IDS)))
    if draw(st.booleans()):
        pairs.append((layout.timestamp, draw(TIMES)))
    if layout.features and draw(st.booleans()):
        count = draw(st.sampled_from([len(paths)] * 8 + [0, len(paths) + 1]))
        value = "[" + ",".join(draw(kind) for kind in [*values, VALUES][:count]) + "]"
        pairs.append((layout.features, draw(st.sampled_from([value] * 8 + ["null", "7"]))))
    else:
        named = draw(st.permutations(paths))
        kept = named[: draw(st.sampled_from([len(named)] * 4 + [0, 1, 2]))]
        pairs += [((*layout.features, *path), draw(of[path])) for path in kept]
    if draw(st.integers(0, 4)) == 0:  # A key that comes twice.
        pairs.append((draw(st.sampled_from(pairs or [(("x0",), "")]))[0], draw(VALUES)))
    text = draw(SPACE) + draw(written(pairs)) + draw(SPACE)
    value = text.encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 5)) == 0 and value:
        place = draw(st.integers(0, len(value) - 1))
        put = draw(st.sampled_from([b"", b"\xff", b"\xc3", b'"', b"\\", b",", b"}", b"\x00", b"9"]))
        value = value[:place] + put + value[place + draw(st.integers(0, 1)) :]
    return value


@st.composite
def written(draw, pairs: Pairs) -> str:
    """An object with these values at their paths; one key may be written in two places."""
    members: list[tuple[str, str]] = []
    groups: dict[str, Pairs] = {}
    for path, value in pairs:
        if len(path) == 1:
            members.append((path[0], value))
        else:
            groups.setdefault(path[0], []).append((path[1:], value))
    members += [(key, draw(written(below))) for key, below in groups.items()]
    texts = [f'"{key}":{draw(SPACE) if len(members) < 3 else ""}{value}' for key, value in members]
    if draw(st.booleans()):
        texts.append(draw(JUNK))
    return "{" + ",".join(draw(st.permutations(texts))) + "}"


NAMES = st.sampled_from(list(LAYOUTS))
NAMED_EVENTS = NAMES.flatmap(lambda name: st.tuples(st.just(name), events(*LAYOUTS[name])))


def read_slowly(value: bytes, name: str) -> ParsedEvent | InvalidEvent:
    try:
        return parse_event(value, CONTRACTS[name].layout, CONTRACTS[name].paths)
    except InvalidEvent as invalid:
        return invalid


def as_float32(numbers: Sequence[float]) -> list[float]:
    with np.errstate(over="raise"):
        return np.array(numbers, np.float64).astype(np.float32).tolist()


def same(a: Sequence[float], b: Sequence[float]) -> bool:
    return np.array_equal(np.asarray(a, np.float32), np.asarray(b, np.float32), equal_nan=True)


@settings(max_examples=600, deadline=None)
@given(NAMED_EVENTS)
def test_an_event_is_read_as_parse_event_reads_it(named):
    name, value = named
    event = read_slowly(value, name)
    for batch in (DECODERS[name].decode(records([value])), PLAIN[name].read(records([value]))):
        if isinstance(event, InvalidEvent):
            assert batch.rejects == [Reject(0, event.reason, event.detail)]
            assert not batch.rows
            continue
        assert not batch.rejects
        assert batch.rows == [0]
        assert same(batch.features[0], as_float32(event.features))
        assert batch.event_ids == [event.event_id or "events-0-0"]
        assert batch.timestamps_ms == [5000 if event.timestamp_ms is None else event.timestamp_ms]


@settings(max_examples=60, deadline=None)
@given(NAMES.flatmap(lambda n: st.tuples(st.just(n), st.lists(events(*LAYOUTS[n]), max_size=12))))
def test_a_record_is_a_row_or_a_reject_and_the_others_do_not_matter(named):
    name, values = named
    decoder = DECODERS[name]
    together = decoder.decode(records(values))
    assert sorted(together.rows + [reject.row for reject in together.rejects]) == [
        *range(len(values))
    ]
    assert together.features.shape == (len(together.rows), len(LAYOUTS[name][1]))
    for place, row in enumerate(together.rows):
        alone = decoder.decode(records([values[row]]))
        assert same(alone.features[0], together.features[place])
    assert len(together.event_ids) == len(together.timestamps_ms) == len(together.rows)


@given(st.binary(max_size=200) | st.text(max_size=50).map(str.encode) | st.none())
def test_no_bytes_are_neither_a_row_nor_a_reject(value):
    batch = DECODERS["default"].decode(records([value]))
    assert len(batch.rows) + len(batch.rejects) == 1


@settings(max_examples=200)
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    ),
    st.sampled_from(["features", "event_id", "timestamp"]),
)
def test_any_json_value_in_any_place_is_read_as_parse_event_reads_it(held, place):
    event = {"event_id": "e", "timestamp": 1, "features": [1.0, 2.0, 3.0], place: held}
    value = json.dumps(event).encode()
    batch = DECODERS["default"].decode(records([value]))
    event = read_slowly(value, "default")
    if isinstance(event, InvalidEvent):
        assert batch.rejects == [Reject(0, event.reason, event.detail)]
    else:
        assert same(batch.features[0], as_float32(event.features))


@pytest.mark.parametrize("name", [n for n in LAYOUTS if not n.startswith("a feature")])
def test_the_fast_reader_takes_the_common_shapes_itself(name):
    """Otherwise the properties above would hold of a reader that takes nothing."""
    layout, paths = LAYOUTS[name]
    read = compile_reader(layout, paths)
    time = {"ms": 1700000000000, "s": 1700000000.5, "rfc3339": "2023-11-14T22:13:20Z"}
    event: dict = {}
    for path, value in (
        (layout.event_id, "e-1"),
        (layout.timestamp, time[layout.timestamp_kind]),
        *(((*layout.features, *path), place + 0.5) for place, path in enumerate(paths)),
    ):
        node = event
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = value
    event_id, timestamp, features, group = read(json.dumps(event).encode())
    assert (event_id, group) == ("e-1", None)
    assert timestamp == (1700000000500 if layout.timestamp_kind == "s" else 1700000000000)
    assert [*features] == [place + 0.5 for place in range(len(paths))]


def test_the_fast_reader_takes_arrays_and_nulls():
    read = compile_reader(EventLayout(), FLAT)
    assert [*read(b'{"features":[1,null,2.5]}')[2]] == [1.0, None, 2.5]
    named = read(b'{"features":{"x1":1}}')[2]
    assert named[1] == 1.0
    assert math.isnan(named[0])


def test_an_array_of_features_above_the_id_is_a_reject_of_the_worker_too():
    """The compiled reader's own error once ended the worker here."""
    batch = DECODERS["id and time among the features"].decode(records([b'{"data":[1,2,3]}']))
    assert [reject.reason for reject in batch.rejects] == [Reason.WRONG_SHAPE]


def test_poison_is_isolated_and_rows_stay_in_order():
    batch = DECODERS["default"].decode(
        records([an_event(1, 2, 3), b"rubbish", None, an_event(4, None, 6), an_event(7, 8, True)])
    )
    assert batch.rows == [0, 3]
    assert [(r.row, r.reason) for r in batch.rejects] == [
        (1, Reason.NOT_JSON),
        (2, Reason.TOMBSTONE),
        (4, Reason.BOOLEAN),
    ]
    np.testing.assert_array_equal(batch.features, np.array([[1, 2, 3], [4, np.nan, 6]], np.float32))


def test_an_event_without_id_or_time_takes_its_records():
    batch: Batch = DECODERS["default"].decode(
        records([b"rubbish", an_event(1, 2, 3, event_id=None, timestamp=None)], "pulses")
    )
    assert batch.event_ids == ["pulses-0-1"]
    assert batch.timestamps_ms == [5000]


def test_no_records_make_an_empty_batch():
    batch = DECODERS["default"].decode(records([]))
    assert batch.features.shape == (0, 3)
    assert not batch.rows
    assert not batch.rejects


def test_an_event_of_just_the_largest_size_is_read_and_one_byte_more_is_not():
    event = an_event(1, 2, 3)
    largest = event + b" " * (EVENT_BYTES_MAX - len(event))
    batch = DECODERS["default"].decode(records([largest, largest + b" "]))
    assert batch.rows == [0]
    assert [reject.reason for reject in batch.rejects] == [Reason.TOO_LARGE]


def test_the_features_are_float32_as_numpy_rounds_them():
    numbers = [0.1, 16777217, 3.4028235677973362e38]
    batch = DECODERS["default"].decode(records([an_event(*numbers)]))
    assert batch.features.dtype == np.float32
    assert batch.features[0].tolist() == as_float32(numbers)


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\tb", "\x00", "<b>x</b>&'"])
def test_a_feature_whose_name_json_must_escape_is_read(name):
    contract = a_contract_of(EventLayout(), ((name,), ("plain",)))
    event = json.dumps({"features": {name: 1.5, "plain": 2.5}}).encode()

    for read in (Decoder(contract).decode, JsonReader(contract, None).read):
        assert read(records([event])).features.tolist() == [[1.5, 2.5]]
