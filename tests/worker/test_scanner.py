"""What the compiled scanner takes, `parse_event` takes with the same result, bit for bit."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path as FilePath

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.event import EVENT_BYTES_MAX, EventLayout
from schemas.write_event import encode_event
from tests.worker.scanned import (
    NAMES,
    PLAIN,
    SCANNED,
    Scanned,
    built,
    check,
    near_events,
)
from tests.worker.test_decode import events
from worker import scanner as module
from worker.scanner import compile_scanner


def can_be_built() -> bool:
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    header = FilePath(sysconfig.get_path("include")) / "Python.h"
    return shutil.which(compiler) is not None and header.exists()


def test_the_scanner_is_there_where_it_can_be_built():
    if module._scanner is None and not (os.environ.get("CI") and can_be_built()):
        pytest.skip("the scanner was not built: no compiler, or no CI to insist on it")
    assert module._scanner is not None, "install again: the scanner was not built"


EVENTS = NAMES.flatmap(
    lambda n: st.tuples(st.just(n), st.one_of(*[near_events(*SCANNED[n])] * 4, events(*SCANNED[n])))
)


@built
@settings(max_examples=1000, deadline=None)
@given(EVENTS)
def test_what_the_scanner_takes_parse_event_takes_with_the_same_result(named):
    name, value = named
    check(name, [value])


@built
@settings(max_examples=100, deadline=None)
@given(
    NAMES.flatmap(
        lambda n: st.tuples(st.just(n), st.lists(st.none() | near_events(*SCANNED[n]), max_size=9))
    )
)
def test_the_rows_of_a_batch_do_not_matter_to_each_other(named):
    name, values = named
    together = check(name, values)
    for row, value in enumerate(values):
        alone = Scanned(name, [value])
        assert alone.taken == ([0] if row in together.taken else [])
        if alone.taken:
            assert alone.event(0) == together.event(row)


@built
@given(st.binary(max_size=200) | st.text(max_size=50).map(str.encode))
def test_any_bytes_are_read_safely(value):
    check("default", [value, b'{"features":' + value + b"}", b'{"junk":"' + value + b'"}'])


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
)


@built
@settings(max_examples=300)
@given(JSON, st.booleans(), st.sampled_from([None, 1]))
def test_an_unread_field_of_any_json_is_skipped(held, ascii_only, indent):
    event = {"first": held, "features": [1, 2, 3], "last": held}
    value = json.dumps(event, ensure_ascii=ascii_only, indent=indent).encode("utf-8", "ignore")
    finite = "NaN" not in value.decode() and "Infinity" not in value.decode()
    scanned = check("default", [value])
    # Its own texts may say so, too.
    assert scanned.taken == [0] or not finite


@built
@settings(max_examples=500)
@given(st.integers(0, len(PLAIN) - 1), st.integers(0, 3), st.binary(max_size=2))
def test_a_few_other_bytes_make_another_event_or_none(place, removed, put):
    check("default", [PLAIN[:place] + put + PLAIN[place + removed :]])
    check("seconds", [PLAIN[:place] + put + PLAIN[place + removed :]])


@built
@pytest.mark.parametrize("name", list(SCANNED))
def test_the_scanner_takes_the_common_shapes(name):
    """Otherwise the properties above would hold of a scanner that takes nothing."""
    layout, paths = SCANNED[name]
    numbers = [0.1, -1234.5678901234567, 1e-7][: len(paths)]
    event: dict = {}
    time = {"ms": 1700000000500, "s": 1700000000.5, "rfc3339": "2023-11-14T22:13:20.500Z"}
    for path, value in (
        (layout.event_id, "e-ä"),
        (layout.timestamp, time[layout.timestamp_kind]),
        *(((*layout.features, *p), n) for p, n in zip(paths, numbers, strict=True)),
        (("unread",), {"a": [True, "\n", {}]}),
    ):
        node = event
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = value
    backwards = dict(reversed(event.items()))
    values = [
        json.dumps(event).encode(),
        json.dumps(event, ensure_ascii=False, indent=2).encode(),
        json.dumps(backwards, separators=(",", ":")).encode(),
    ]
    scanned = check(name, [value.replace(b"\\u00e4", "ä".encode()) for value in values])
    assert scanned.untaken == []
    assert scanned.event_ids == ["e-ä"] * 3
    assert scanned.timestamps_ms == [1700000000500] * 3
    assert (scanned.features == np.float32(numbers)).all()


@built
@pytest.mark.parametrize(
    ("value", "event_id", "timestamp", "features"),
    [
        (PLAIN, "e-1", 1700000000000, [1.5, -225, math.nan]),
        (b'{"features":[1,2,3]}', None, None, [1, 2, 3]),
        (b' {\n"features" : {"x2" : 1E0 , "x0":null} }\t', None, None, [math.nan, math.nan, 1]),
        (b'{"features":{}}', None, None, [math.nan] * 3),
        (b'{"features":[1,2,3],"event_id":null,"timestamp":null}', None, None, [1, 2, 3]),
        (b'{"event_id":"","features":[1,2,3]}', None, None, [1, 2, 3]),
        (b'{"event_id":-12,"timestamp":0,"features":[1,2,3]}', "-12", 0, [1, 2, 3]),
        (b'{"timestamp":2.5,"features":[-0,-0.0,1e-45]}', None, 2, [0.0, -0.0, 1e-45]),
        (b'{"junk":{"features":[1]},"features":[1,2,3]}', None, None, [1, 2, 3]),
    ],
)
def test_an_event_is_read_as_it_stands(value, event_id, timestamp, features):
    scanned = check("default", [value])
    assert scanned.taken == [0]
    assert scanned.event(0) == (event_id, timestamp, np.float32(features).tobytes())


@built
@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"[]",
        b"{}",
        b'{"features":null}',
        b'{"features":[1,2]}',
        b'{"features":[1,2,3,4]}',
        b'{"features":[1,2,3]}x',
        b'{"features":[1,2,3]}\x00',
        b'{"features":[1,2,3],}',
        b'{"features":[1,2,3],"features":[1,2,3]}',
        b'{"features":{"x0":1,"x0":1}}',
        b'{"features":[1,2,true]}',
        b'{"features":[1,2,NaN]}',
        b'{"features":[1,2,01]}',
        b'{"features":[1,2,1.]}',
        b'{"features":[1,2,.5]}',
        b'{"features":[1,2,-]}',
        b'{"features":[1,2,+3]}',
        b'{"features":[1,2,3e]}',
        b'{"features":[1,2,3e+]}',
        b'{"features":[1,2,1e39]}',
        b'{"features":[1,2,3],"junk":"\t"}',
        b'{"features":[1,2,3],"junk":"\\u12g4"}',
        b'{"features":[1,2,3],"junk":-Infinity}',
        b'{"features":[1,2,3],"junk":[}',
        b'{"features":[1,2,3],"event_id":"\xff"}',
        b'{"features":[1,2,3],"event_id":1.0}',
        b'{"features":[1,2,3],"event_id":-0}',
        b'{"features":[1,2,3],"event_id":"\\n"}',
        b'{"features":[1,2,3],"event_id":true}',
        b'{"features":[1,2,3],"event_id":"' + b"i" * 513 + b'"}',
        b'{"features":[1,2,3],"timestamp":-1}',
        b'{"features":[1,2,3],"timestamp":253402300799999.5}',
        b'{"features":[1,2,3],"timestamp":253402300800000}',
        b'{"features":[1,2,3],"timestamp":"2026-01-31T12:00:00Z"}',
        b'{"features":[1,2,3],"junk":' + b"[" * 70 + b"]" * 70 + b"}",
    ],
)
def test_what_is_no_plain_event_is_not_taken(value):
    scanned = Scanned("default", [PLAIN, value, PLAIN])
    assert scanned.untaken == [1]
    assert scanned.event(0) == scanned.event(2) == ("e-1", 1700000000000, scanned.event(0)[2])


@built
@pytest.mark.parametrize(
    ("name", "value"),
    [
        # The id would be below an array.
        ("id and time among the features", b'{"data":[1,2,3]}'),
        ("id below the features", b'{"a":{"b":[1,2,3]}}'),
        ("nested", b'{"payload":null}'),
        ("nested", b'{"meta":[],"payload":{"values":[1,2,3]}}'),
        ("root", b'{"deep":1}'),
        ("root", b"[1,2,3]"),
        ("rfc3339", b'{"features":[1,2,3],"timestamp":""}'),
        ("rfc3339", b'{"features":[1,2,3],"timestamp":5}'),
        ("rfc3339", b'{"features":[1,2,3],"timestamp":"2026-01-31"}'),
        ("rfc3339", b'{"features":[1,2,3],"timestamp":"\\u0032026-01-31T12:00:00Z"}'),
    ],
)
def test_what_does_not_fit_the_layout_is_not_taken(name, value):
    assert Scanned(name, [value]).untaken == [0]


@built
def test_an_event_of_just_the_largest_size_is_taken_and_one_byte_more_is_not():
    largest = PLAIN + b" " * (EVENT_BYTES_MAX - len(PLAIN))
    assert Scanned("default", [largest, largest + b" "]).untaken == [1]


@built
def test_an_id_of_just_the_most_characters_is_taken():
    value = json.dumps({"event_id": "\U0001d11e" * 512, "features": [1, 2, 3]}, ensure_ascii=False)
    assert check("default", [value.encode()]).event_ids == ["\U0001d11e" * 512]


@built
@given(st.permutations([f"x{i}" for i in range(12)]), st.permutations([f"x{i}" for i in range(14)]))
def test_named_features_are_found_in_any_order(first, second):
    """The scanner expects the order of the event before, and must not depend on it."""
    paths = tuple((f"x{i}",) for i in range(12))
    scanner = compile_scanner(EventLayout(features=()), paths)
    values = [json.dumps({key: int(key[1:]) for key in keys}).encode() for keys in (first, second)]
    matrix = np.zeros((4, 12), np.float32)
    assert scanner.scan(values * 2, matrix, [None] * 4, [None] * 4) == []
    assert (matrix == np.arange(12)).all()


@built
def test_what_write_event_writes_is_taken():
    layout, paths = SCANNED["default"]
    value = encode_event(
        layout, paths, event_id="e", timestamp_ms=5, features=[0.1, math.nan, -1e-30]
    )
    assert check("default", [value]).event(0)[:2] == ("e", 5)


def test_without_the_compiled_module_there_is_no_scanner_and_no_error():
    code = (
        "import sys; sys.modules['worker._scanner'] = None\n"
        "from schemas.event import EventLayout\n"
        "from worker.scanner import compile_scanner\n"
        "sys.exit(compile_scanner(EventLayout(), [('x0',)]) is not None)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
