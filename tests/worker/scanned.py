"""For the tests of the compiled scanner: scanning, comparing with `parse_event`, and events.

`near_events` are events with at most a fault or two. Of those that `tests.worker.test_decode` makes
few are without, which suits tests of what is refused; here it matters what is taken.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from schemas.event import EPOCH, EventLayout, InvalidEvent, ParsedEvent, Path, parse_event
from tests.worker.test_decode import LAYOUTS, NUMBERS, TIMES, WRONG
from worker import scanner as module
from worker.scanner import compile_scanner

built = pytest.mark.skipif(module._scanner is None, reason="the scanner was not built here")

COLLIDING = {"a feature is the id", "a feature below another"}
SCANNED = {name: shape for name, shape in LAYOUTS.items() if name not in COLLIDING}
SCANNERS = {name: compile_scanner(*shape) for name, shape in SCANNED.items()}
NAMES = st.sampled_from(list(SCANNED))

# One event, for tests that change a little of it.
PLAIN = b'{"event_id":"e-1","timestamp":1700000000000,"features":[1.5,-2.25e2,null]}'

OUTSIDE = 12345.0


class Scanned:
    """A batch as a scanner left it."""

    def __init__(self, name: str, values: Sequence[bytes | None]) -> None:
        n = len(values)
        scanner = SCANNERS[name]
        assert scanner is not None
        # A row of its own before and after, so that a write beyond the matrix shows.
        matrix = np.full((n + 2, len(SCANNED[name][1])), OUTSIDE, np.float32)
        self.features = matrix[1:-1]
        self.event_ids: list[str | None] = [None] * n
        self.timestamps_ms: list[int | None] = [None] * n
        self.untaken = scanner.scan(list(values), self.features, self.event_ids, self.timestamps_ms)
        assert (matrix[[0, -1]] == OUTSIDE).all()
        assert self.untaken == sorted(set(self.untaken))
        self.taken = [row for row in range(n) if row not in self.untaken]

    def event(self, row: int) -> tuple[str | None, int | None, bytes]:
        return self.event_ids[row], self.timestamps_ms[row], self.features[row].tobytes()


def check(name: str, values: Sequence[bytes | None]) -> Scanned:
    """Scan a batch, and compare all that was taken with what `parse_event` says, bit for bit."""
    scanned = Scanned(name, values)
    for row in scanned.taken:
        try:
            event = parse_event(values[row], *SCANNED[name])
        except InvalidEvent as invalid:
            pytest.fail(f"{values[row]!r} was taken, but is no event: {invalid}")
        assert scanned.event(row) == as_scanned(event), values[row]
    return scanned


def as_scanned(event: ParsedEvent) -> tuple[str | None, int | None, bytes]:
    features = struct.pack(f"={len(event.features)}f", *event.features)
    return event.event_id, event.timestamp_ms, features


NAME = st.text(max_size=5)
IDS = st.one_of(
    NAME.map(json.dumps),
    NAME.map(lambda text: json.dumps(text, ensure_ascii=False)),
    st.integers(-(10**19), 10**19).map(str),
    st.just("null"),
)
GOOD_TIMES = {
    "ms": st.integers(0, 253_402_300_800_000) | st.floats(0, 2e12) | st.decimals(0, 9, places=2),
    "s": st.integers(0, 253_402_300_800) | st.floats(0, 2e9) | st.decimals(0, 9, places=4),
    "rfc3339": st.datetimes(EPOCH.replace(tzinfo=None)).map(
        lambda moment: f'"{moment.isoformat()}Z"'
    ),
}
FITTING = st.one_of(
    st.floats(-1e38, 1e38).map(repr),
    st.floats(-1e3, 1e3).map("{:.6f}".format),
    st.integers(-(2**70), 2**70).map(str),
)
JUNK = st.sampled_from(
    ["1.5e3", '"\\u0000\\""', '{"x0":[null,{}]}', "[]", '["\u2028"]', "[[[-0.1]],true]"]
)
Members = list[tuple[str, Any]]  # Keys, and a text or Members.


@st.composite
def near_events(draw, layout: EventLayout, paths: Sequence[Path]) -> bytes:
    """Bytes that are mostly an event, in any order, and often one but for a small thing."""
    parts: dict[Path, st.SearchStrategy[str]] = {
        layout.event_id: IDS,
        layout.timestamp: GOOD_TIMES[layout.timestamp_kind].map(str),
    }
    number = st.one_of(FITTING, FITTING, FITTING, NUMBERS, st.just("null"))
    if layout.features and draw(st.booleans()):
        numbers = st.lists(number, min_size=len(paths), max_size=len(paths))
        parts[layout.features] = numbers.map(lambda texts: f"[{','.join(texts)}]")
    else:
        parts |= {(*layout.features, *path): number for path in paths}
    for path in draw(st.lists(st.sampled_from(list(parts)), max_size=2, unique=True)):
        change = draw(st.sampled_from(["absent", "absent", "wrong"]))
        if change == "absent":
            del parts[path]
        else:
            parts[path] = WRONG | TIMES
    values = [(path, draw(value)) for path, value in parts.items()]
    if draw(st.booleans()):
        values.append(((draw(st.sampled_from(["junk", "", "x9"])),), draw(JUNK)))
    if values and draw(st.integers(0, 7)) == 0:
        values.append(draw(st.sampled_from(values)))
    event: Members = []
    for path, value in draw(st.permutations(values)):
        put(event, path, value)
    text = written(event, draw(st.sampled_from(["", "", " ", "\r\n\t"])))
    return draw(damaged(text.encode("utf-8", "surrogatepass")))


def put(members: Members, path: Path, value: str) -> None:
    key, *rest = path
    if not rest:
        members.append((key, value))
        return
    for known, below in members:
        if known == key and isinstance(below, list):
            put(below, tuple(rest), value)
            return
    members.append((key, []))
    put(members[-1][1], tuple(rest), value)


def written(members: Members, space: str) -> str:
    texts = [
        f'{space}"{key}"{space}:{space}{held if isinstance(held, str) else written(held, space)}'
        for key, held in members
    ]
    return "{" + f"{space},".join(texts) + space + "}"


@st.composite
def damaged(draw, value: bytes) -> bytes:
    """The same bytes, or once in a while with another one somewhere."""
    if draw(st.integers(0, 5)):
        return value
    place = draw(st.integers(0, len(value)))
    put_in = draw(
        st.sampled_from([b"", b"\xff", b'"', b"\\", b",", b"}", b"\x00", b"9", b"e", b"\n"])
    )
    return value[:place] + put_in + value[place + draw(st.integers(0, 1)) :]
