"""What the compiled scanner is not for: layouts beyond it, and arguments that are wrong.

These are answered with an error, never with a crash.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

from schemas.event import EventLayout
from tests.worker.scanned import COLLIDING, PLAIN, SCANNERS, built
from tests.worker.test_decode import FLAT, LAYOUTS
from worker import scanner as module
from worker.scanner import compile_scanner


@built
@pytest.mark.parametrize(
    ("layout", "paths"),
    [
        *(LAYOUTS[name] for name in COLLIDING),
        (EventLayout(), ()),
        (EventLayout(event_id=()), FLAT),
        (EventLayout(event_id=("features",)), FLAT),
        (EventLayout(features=("event_id",)), FLAT),
        (EventLayout(timestamp=("event_id",)), FLAT),
        (EventLayout(event_id=("a",), features=("a", "b")), FLAT),
        (EventLayout(), (("x0",), ("x0",))),
        (EventLayout(), (("x0",), ())),
        (EventLayout(event_id=('a"b',)), FLAT),
        (EventLayout(event_id=("a\\b",)), FLAT),
        (EventLayout(event_id=("a\nb",)), FLAT),
        (EventLayout(event_id=("\ud800",)), FLAT),
        (EventLayout(features=("deep",) * 70), FLAT),
    ],
)
def test_a_layout_beyond_the_scanner_has_none(layout, paths):
    assert compile_scanner(layout, paths) is None


@built
@pytest.mark.parametrize("key", ["", "ä", "a b", "\x7f", "\U0001d11e", "features"])
def test_a_key_is_any_text_that_needs_no_escape(key):
    scanner = compile_scanner(EventLayout(), ((key,), (key + "x",)))
    value = json.dumps({"features": {key + "x": 1, key: 2}}, ensure_ascii=False).encode()
    matrix = np.zeros((1, 2), np.float32)
    assert scanner.scan([value], matrix, [None], [None]) == []
    assert matrix.tolist() == [[2, 1]]


def read_only() -> np.ndarray:
    matrix = np.zeros((1, 3), np.float32)
    matrix.flags.writeable = False
    return matrix


@built
@pytest.mark.parametrize(
    "arguments",
    [
        (None, np.zeros((1, 3), np.float32), [None], [None]),
        ((PLAIN,), np.zeros((1, 3), np.float32), [None], [None]),
        (["text"], np.zeros((1, 3), np.float32), [None], [None]),
        ([bytearray(PLAIN)], np.zeros((1, 3), np.float32), [None], [None]),
        ([PLAIN], None, [None], [None]),
        ([PLAIN], [[0.0] * 3], [None], [None]),
        ([PLAIN], np.zeros((1, 3), np.float64), [None], [None]),
        ([PLAIN], np.zeros((1, 3), ">f4"), [None], [None]),
        ([PLAIN], np.zeros((1, 3), np.int32), [None], [None]),
        ([PLAIN], np.zeros((1, 4), np.float32), [None], [None]),
        ([PLAIN], np.zeros((2, 3), np.float32), [None], [None]),
        ([PLAIN], np.zeros(3, np.float32), [None], [None]),
        ([PLAIN] * 3, np.zeros((3, 3), np.float32).T, [None] * 3, [None] * 3),
        ([PLAIN], np.zeros((1, 6), np.float32)[:, ::2], [None], [None]),
        ([PLAIN], read_only(), [None], [None]),
        ([PLAIN], np.zeros((1, 3), np.float32), [], [None]),
        ([PLAIN], np.zeros((1, 3), np.float32), [None], [None, None]),
        ([PLAIN], np.zeros((1, 3), np.float32), (None,), [None]),
        ([PLAIN], np.zeros((1, 3), np.float32), [None]),
    ],
)
def test_arguments_of_another_kind_are_refused(arguments):
    with pytest.raises((TypeError, ValueError)):
        SCANNERS["default"].scan(*arguments)


@built
def test_a_list_that_shrinks_in_mid_scan_is_an_error():
    class Shrinks:
        def __del__(self) -> None:
            event_ids.clear()
            values.clear()

    values: list = [PLAIN, PLAIN]
    event_ids: list = [Shrinks(), None]
    with pytest.raises(IndexError):
        SCANNERS["default"].scan(values, np.zeros((2, 3), np.float32), event_ids, [None, None])


@built
@pytest.mark.parametrize(
    "nodes",
    [
        (),
        [],
        (None,),
        ((b"",),),
        (("", 0, 1, 1), (b"x", 3, 0, 0)),
        ((b"", 0, 0, 1),),
        ((b"", 0, 1, 1),),
        ((b"", 0, 1, 2), (b"x", 3, 0, 0)),
        ((b"", 0, 1, 2**62), (b"x", 3, 0, 0)),
        ((b"", 0, -1, 1), (b"x", 3, 0, 0)),
        ((b"", 0, 1, 1), (b"x", 3, 3, 0)),
        ((b"", 0, 1, 1), (b"x", 3, -1, 0)),
        ((b"", 0, 1, 1), (b"x", 99, 0, 0)),
        ((b"x", 3, 0, 0),),
    ],
)
def test_a_tree_that_is_none_is_refused(nodes):
    with pytest.raises((TypeError, ValueError)):
        module._scanner.Scanner(
            nodes,
            3,
            event_bytes_max=100,
            event_id_chars_max=9,
            group_chars_max=9,
            timestamp_ms_max=9,
        )


@built
def test_a_tree_deeper_than_the_scanner_goes_takes_nothing():
    nodes = (*((b"a", 0, place + 1, 1) for place in range(100_000)), (b"a", 3, 0, 0))
    deep = module._scanner.Scanner(
        nodes, 1, event_bytes_max=10**6, event_id_chars_max=9, group_chars_max=9, timestamp_ms_max=9
    )
    value = b'{"a":' * 100_001 + b"1" + b"}" * 100_001
    assert deep.scan([value], np.zeros((1, 1), np.float32), [None], [None]) == [0]
