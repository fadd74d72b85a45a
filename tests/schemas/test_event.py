"""What is an event and what is not: `parse_event`, and the worker's decoder with it."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.category import CATEGORY_CHARS_MAX, Codes
from schemas.dead_letter import Reason
from schemas.event import (
    EVENT_ID_CHARS_MAX,
    TIMESTAMP_MS_MAX,
    EventLayout,
    InvalidEvent,
    parse_event,
)
from schemas.groups import group_in
from schemas.write_event import encode_event
from tests.builders import a_model, records
from tests.schemas.bad_events import BAD_CATEGORIES, BAD_EVENTS, CODES

PATHS = (("x0",), ("x1",), ("x2",))
DEFAULT = EventLayout()


@pytest.mark.parametrize("name", BAD_EVENTS)
def test_a_bad_event_has_its_reason(name):
    value, reason, detail = BAD_EVENTS[name]
    with pytest.raises(InvalidEvent) as caught:
        parse_event(value, DEFAULT, PATHS)
    assert caught.value.reason == reason
    assert detail in caught.value.detail
    assert len(caught.value.detail) < 500


def test_the_worker_rejects_every_bad_event_and_scores_its_neighbours():
    values = [value for value, _, _ in BAD_EVENTS.values()]
    good = b'{"features":[1,2,3]}'
    decoder = a_model().decoder
    batch = decoder.decode(records([good, *values, good]))
    assert batch.rows == [0, len(values) + 1]
    assert [reject.reason for reject in batch.rejects] == [r for _, r, _ in BAD_EVENTS.values()]
    assert [reject.row for reject in batch.rejects] == [*range(1, len(values) + 1)]


def test_the_tables_of_bad_events_have_every_reason():
    both = [*BAD_EVENTS.values(), *BAD_CATEGORIES.values()]
    assert {reason for _, reason, _ in both} == set(Reason)
    assert len(BAD_EVENTS) >= 25


@pytest.mark.parametrize("name", BAD_CATEGORIES)
def test_what_is_no_category_has_its_reason(name):
    value, reason, detail = BAD_CATEGORIES[name]
    with pytest.raises(InvalidEvent) as caught:
        parse_event(value, DEFAULT, PATHS, CODES)
    assert caught.value.reason == reason
    assert detail in caught.value.detail
    assert len(caught.value.detail) < 500


@pytest.mark.parametrize(
    ("written", "code"),
    [
        ('"tcp"', 0),
        ('"udp"', 1),
        ('"icmp"', 2),
        ('"TCP"', 2),
        ('" tcp"', 2),
        ('"t\\u0063p"', 0),
        ("80", 2),
        ('"' + "t" * CATEGORY_CHARS_MAX + '"', 2),
        ("null", math.nan),
        ('""', math.nan),
    ],
)
def test_a_category_is_read_as_its_code_and_any_other_text_as_one_past_the_last(written, code):
    for event in (f'{{"features":[1,{written},3]}}', f'{{"features":{{"x1":{written}}}}}'):
        read = parse_event(event.encode(), DEFAULT, PATHS, CODES).features[1]
        assert read == code or (math.isnan(read) and math.isnan(code))


def test_an_integer_is_a_category_as_its_decimal_text():
    codes = (None, Codes.of(("404", "-1", "0", "98765432109876543210")), None)
    for code, written in enumerate(["404", "-1", "0", "98765432109876543210"]):
        for text in (written, f'"{written}"'):
            event = f'{{"features":[1,{text},3]}}'.encode()
            assert parse_event(event, DEFAULT, PATHS, codes).features[1] == code
    assert parse_event(b'{"features":[1,-0,3]}', DEFAULT, PATHS, codes).features[1] == 2
    assert parse_event(b'{"features":[1,"-0",3]}', DEFAULT, PATHS, codes).features[1] == 4


def test_a_category_that_was_written_is_read_back():
    value = encode_event(
        DEFAULT, PATHS, event_id="e", timestamp_ms=1, features=[1.5, "udp", math.nan]
    )
    event = parse_event(value, DEFAULT, PATHS, CODES)
    assert event.features[:2] == [1.5, 1]
    assert math.isnan(event.features[2])


def test_named_features_come_in_the_contracts_order_and_unknown_names_are_ignored():
    event = parse_event(b'{"features":{"x2":3,"new":"?","x0":1,"x1":2}}', DEFAULT, PATHS)
    assert event.features == [1.0, 2.0, 3.0]


def test_a_feature_that_is_absent_or_null_is_missing():
    event = parse_event(b'{"features":{"x0":null,"x2":3}}', DEFAULT, PATHS)
    assert [math.isnan(value) for value in event.features] == [True, True, False]
    assert all(map(math.isnan, parse_event(b'{"features":{}}', DEFAULT, PATHS).features))


def test_a_key_that_occurs_twice_counts_the_last_time():
    value = b'{"features":[9,9,9],"event_id":"a","event_id":"b","features":[1,2,3]}'
    event = parse_event(value, DEFAULT, PATHS)
    assert (event.event_id, event.features) == ("b", [1.0, 2.0, 3.0])


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ('"e-1"', "e-1"),
        ('"\\u00e9\\ud834\\udd1e"', "\u00e9\U0001d11e"),
        ("17", "17"),
        ("-3", "-3"),
        ("98765432109876543210", "98765432109876543210"),
        ("null", None),
        ('""', None),
        ('" "', " "),
        ('"' + "i" * EVENT_ID_CHARS_MAX + '"', "i" * EVENT_ID_CHARS_MAX),
    ],
)
def test_an_event_id_is_a_string_or_an_integer(written, read):
    value = f'{{"event_id":{written},"features":[1,2,3]}}'.encode()
    assert parse_event(value, DEFAULT, PATHS).event_id == read


@pytest.mark.parametrize(
    ("kind", "written", "milliseconds"),
    [
        ("ms", "0", 0),
        ("ms", "1700000000123", 1700000000123),
        ("ms", "1700000000123.4", 1700000000123),
        ("ms", "1.7e12", 1700000000000),
        ("ms", str(TIMESTAMP_MS_MAX), TIMESTAMP_MS_MAX),
        ("ms", "null", None),
        ("s", "1700000000", 1700000000000),
        ("s", "1700000000.1234", 1700000000123),
        ("s", "0.0004", 0),
        ("rfc3339", '"2023-11-14T22:13:20Z"', 1700000000000),
        ("rfc3339", '"2023-11-14T22:13:20.5+00:00"', 1700000000500),
        ("rfc3339", '"2023-11-15T03:43:20+05:30"', 1700000000000),
        ("rfc3339", '"1970-01-01T00:00:00Z"', 0),
        ("rfc3339", "null", None),
    ],
)
def test_a_time_of_each_kind_comes_out_in_milliseconds(kind, written, milliseconds):
    layout = EventLayout(timestamp_kind=kind)
    value = f'{{"timestamp":{written},"features":[1,2,3]}}'.encode()
    assert parse_event(value, layout, PATHS).timestamp_ms == milliseconds


@pytest.mark.parametrize(
    ("kind", "written"),
    [
        ("ms", '"2023-11-14T22:13:20Z"'),
        ("s", "true"),
        ("s", "253402300800"),
        ("s", "1" * 310),
        ("s", "-0.001"),
        ("rfc3339", "1700000000000"),
        ("rfc3339", '"2023-11-14T22:13:20"'),
        ("rfc3339", '"2023-11-14"'),
        ("rfc3339", '"2023-13-14T22:13:20Z"'),
        ("rfc3339", '"1969-12-31T23:59:59Z"'),
        ("rfc3339", '""'),
        ("rfc3339", '"soon"'),
    ],
)
def test_a_time_of_another_kind_is_refused(kind, written):
    value = f'{{"timestamp":{written},"features":[1,2,3]}}'.encode()
    with pytest.raises(InvalidEvent) as caught:
        parse_event(value, EventLayout(timestamp_kind=kind), PATHS)
    assert caught.value.reason == Reason.BAD_TIMESTAMP


NESTED = EventLayout(
    event_id=("meta", "id"), timestamp=("meta", "at"), features=("payload", "values")
)
NESTED_PATHS = (("x0",), ("deep", "x1"), ("x2",))


def test_a_layout_finds_the_parts_in_a_users_own_json():
    value = (
        b'{"meta":{"id":7,"at":1000,"by":"me"},"payload":{"values":{"x0":1,"deep":{"x1":2}},"v":1}}'
    )
    event = parse_event(value, NESTED, NESTED_PATHS)
    assert (event.event_id, event.timestamp_ms) == ("7", 1000)
    assert event.features[:2] == [1.0, 2.0]
    assert math.isnan(event.features[2])


def test_features_may_stand_at_the_top():
    layout = EventLayout(features=())
    event = parse_event(b'{"event_id":"e","x0":1,"x1":2,"x2":3}', layout, PATHS)
    assert event.features == [1.0, 2.0, 3.0]


def test_a_number_on_the_way_to_a_part_is_a_wrong_shape():
    for value in (b'{"meta":3,"payload":{"values":{}}}', b'{"payload":{"values":{"deep":3}}}'):
        with pytest.raises(InvalidEvent) as caught:
            parse_event(value, NESTED, NESTED_PATHS)
        assert caught.value.reason == Reason.WRONG_SHAPE


def test_a_way_that_ends_early_leaves_a_part_absent():
    event = parse_event(b'{"meta":null,"payload":{"values":{"deep":null}}}', NESTED, NESTED_PATHS)
    assert (event.event_id, event.timestamp_ms) == (None, None)
    assert all(map(math.isnan, event.features))


@given(
    st.sampled_from([DEFAULT, NESTED, EventLayout(features=())]),
    st.sampled_from(["ms", "s", "rfc3339"]),
    st.none() | st.text(st.characters(codec="utf-8"), min_size=1, max_size=20),
    st.none() | st.integers(0, TIMESTAMP_MS_MAX),
    st.lists(st.floats(width=32, allow_infinity=False), min_size=3, max_size=3),
)
def test_an_event_that_was_written_is_read_back(layout, kind, event_id, timestamp, features):
    layout = EventLayout(
        event_id=layout.event_id,
        timestamp=layout.timestamp,
        features=layout.features,
        timestamp_kind=kind,
    )
    value = encode_event(
        layout, NESTED_PATHS, event_id=event_id, timestamp_ms=timestamp, features=features
    )
    event = parse_event(value, layout, NESTED_PATHS)
    assert (event.event_id, event.timestamp_ms) == (event_id, timestamp)
    assert all(
        read == written or (math.isnan(read) and math.isnan(written))
        for read, written in zip(event.features, features, strict=True)
    )


def test_what_stands_among_the_features_is_written_beside_them():
    """An array would leave no place for it, and the group would be lost."""
    at = {"event_id": None, "timestamp_ms": None, "features": [1.0, 2.0, 3.0]}
    value = encode_event(DEFAULT, NESTED_PATHS, **at, group=(("features", "site"), "oslo"))
    assert group_in(value, ("features", "site")) == "oslo"
    assert list(parse_event(value, DEFAULT, NESTED_PATHS).features) == at["features"]
    within = EventLayout(event_id=("data", "id"), timestamp=("data", "at"), features=("data",))
    event = parse_event(
        encode_event(within, PATHS, **{**at, "event_id": "7", "timestamp_ms": 8}), within, PATHS
    )
    assert (event.event_id, event.timestamp_ms, [*event.features]) == ("7", 8, at["features"])
    beside = encode_event(DEFAULT, PATHS, **at, group=(("site",), "oslo"))
    assert isinstance(json.loads(beside)["features"], list)  # Shorter, where it will do.


def test_an_infinite_feature_is_not_written():
    with pytest.raises(ValueError, match="infinite"):
        encode_event(DEFAULT, PATHS, event_id=None, timestamp_ms=None, features=[1, math.inf, 2])
