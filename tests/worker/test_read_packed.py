"""Packed events: the same values as in JSON give the same result, and nothing falls between."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas.dead_letter import Headers, Reason
from schemas.event import EVENT_ID_CHARS_MAX, InvalidEvent
from schemas.packed_event import (
    CONTENT_TYPE_HEADER,
    EVENT_ID_HEADER,
    PACKED,
    encode_packed,
    parse_packed,
)
from tests.builders import a_model
from worker.decode import Decoder
from worker.read_packed import PackedReader
from worker.results import to_results
from worker.turn import Records, Reject

MODEL = a_model()
DECODER = Decoder(MODEL.contract)
WIDTH = len(MODEL.contract.features)
MARKED = (CONTENT_TYPE_HEADER, PACKED)

FLOATS = st.floats(width=32, allow_infinity=False)
EVENTS = st.lists(FLOATS, min_size=WIDTH, max_size=WIDTH)
KEYS = st.none() | st.binary(max_size=8) | st.text(max_size=6).map(str.encode)
VALUES = (
    EVENTS.map(encode_packed)
    | EVENTS.map(encode_packed)
    | st.lists(st.floats(width=32), min_size=WIDTH, max_size=WIDTH).map(
        lambda numbers: struct.pack(f"<{WIDTH}f", *numbers)
    )
    | st.binary(max_size=4 * WIDTH + 4)
    | st.none()
)
HEADERS: st.SearchStrategy[Headers | None] = st.none() | st.lists(
    st.tuples(st.sampled_from([EVENT_ID_HEADER, "traceparent"]), KEYS), max_size=3
)
A_BATCH = st.lists(st.tuples(VALUES, KEYS, HEADERS), max_size=8)
A_CLEAN_BATCH = st.lists(st.tuples(EVENTS.map(encode_packed), KEYS, st.none()), max_size=8)


def records_of(rows: Sequence[tuple[bytes | None, bytes | None, Headers | None]]) -> Records:
    n = len(rows)
    values, keys, headers = ([*column] for column in zip(*rows, strict=True)) if n else ([], [], [])
    return Records("events", [0] * n, [*range(n)], [5000] * n, keys, values, headers)


@settings(max_examples=300)
@given(A_BATCH | A_CLEAN_BATCH)
@example([(encode_packed([1.0] * WIDTH), b"k" * (EVENT_ID_CHARS_MAX + 1), None)])
@example([(encode_packed([1.0] * WIDTH), b"\xff", None)])
def test_a_batch_is_read_as_its_events_are_one_by_one(rows):
    batch = PackedReader(WIDTH).read(records_of(rows))
    kept, rejects = [], []
    for row, (value, key, headers) in enumerate(rows):
        try:
            kept.append((row, parse_packed(value, key, headers, WIDTH)))
        except InvalidEvent as invalid:
            rejects.append(Reject(row, invalid.reason, invalid.detail))
    assert batch.rejects == rejects
    assert batch.rows == [row for row, _ in kept]
    assert batch.event_ids == [event.event_id or f"events-0-{row}" for row, event in kept]
    assert batch.timestamps_ms == [5000] * len(kept)
    wanted = np.array([event.features for _, event in kept], np.float32).reshape(-1, WIDTH)
    assert batch.features.dtype == np.float32
    np.testing.assert_array_equal(batch.features, wanted)


@settings(max_examples=100)
@given(st.lists(EVENTS, min_size=1, max_size=6))
def test_the_same_values_give_the_same_record_as_in_json(events):
    def scored(values: list[tuple[bytes, bool]]) -> list[bytes | None]:
        n = len(values)
        read = Records(
            "events",
            [0] * n,
            [*range(n)],
            [5000] * n,
            [b"e-%d" % row for row in range(n)],
            [value for value, _ in values],
            [[MARKED] if is_packed else None for _, is_packed in values],
        )
        batch = DECODER.decode(read)
        outputs = to_results(read, batch, MODEL.score(batch.features), MODEL, 5)
        assert len(outputs.scores) == n
        assert not outputs.scores.headers
        return outputs.scores.values

    as_json = [
        (
            json.dumps({"event_id": f"e-{row}", "features": [*map(or_null, features)]}).encode(),
            False,
        )
        for row, features in enumerate(events)
    ]
    packed = [(encode_packed(features), True) for features in events]
    mixed = [(packed, as_json)[row % 2][row] for row in range(len(events))]
    assert scored(packed) == scored(mixed) == scored(as_json)


def or_null(number: float) -> float | None:
    return None if math.isnan(number) else number


def test_each_bad_event_says_what_is_wrong_with_it():
    infinite = struct.pack("<3f", 1, math.inf, 3)
    rows = [
        (b"\0" * 11, None, None),
        (b"", None, None),
        (None, None, None),
        (infinite, None, None),
        (b"\0" * 12, None, [(EVENT_ID_HEADER, b"\xff")]),
        (b"\0" * 12, None, None),
    ]
    batch = PackedReader(3).read(records_of(rows))
    assert batch.rows == [5]
    assert [(reject.reason, reject.detail) for reject in batch.rejects] == [
        (Reason.WRONG_COUNT, "11 bytes; 3 packed features are 12"),
        (Reason.WRONG_COUNT, "0 bytes; 3 packed features are 12"),
        (Reason.TOMBSTONE, "the record has no value; wanted packed floats"),
        (Reason.NOT_FINITE, "feature 1 is infinite; wanted a number, or NaN"),
        (
            Reason.BAD_EVENT_ID,
            "the header event-id holds 1 bytes; wanted UTF-8 of 1 to 512 characters",
        ),
    ]


def test_the_content_type_says_the_format_and_the_setting_where_it_is_silent():
    packed, text = encode_packed([1, 2, 3]), b'{"event_id":"j","features":[1,2,3]}'
    as_json = [(CONTENT_TYPE_HEADER, b"application/json")]
    rows = [
        (packed, b"a", [MARKED]),
        (text, b"b", as_json),
        (packed, b"c", None),
        (text, b"d", None),
        (text, b"e", [(CONTENT_TYPE_HEADER, None)]),
    ]
    unmarked_json = DECODER.decode(records_of(rows))
    assert unmarked_json.event_ids == ["a", "j", "j", "j"]
    assert [reject.row for reject in unmarked_json.rejects] == [2]
    unmarked_packed = DECODER.decode(records_of(rows), "packed")
    assert unmarked_packed.event_ids == ["a", "j", "c", "j"]
    assert [reject.row for reject in unmarked_packed.rejects] == [3]
    np.testing.assert_array_equal(unmarked_packed.features, [[1, 2, 3]] * 4)


def test_the_header_names_the_event_before_its_key():
    rows = [(encode_packed([1, 2, 3]), b"key", [(EVENT_ID_HEADER, "é-1".encode())])]
    assert PackedReader(3).read(records_of(rows)).event_ids == ["é-1"]


def test_a_key_that_is_no_text_names_no_event():
    rows = [(encode_packed([1, 2, 3]), b"\x00\xff", None), (encode_packed([1, 2, 3]), b"", None)]
    assert PackedReader(3).read(records_of(rows)).event_ids == ["events-0-0", "events-0-1"]


@pytest.mark.parametrize("number", [math.inf, -math.inf])
def test_an_infinite_feature_is_not_written(number):
    with pytest.raises(ValueError, match="NaN says that it is missing"):
        encode_packed([1.0, number])
