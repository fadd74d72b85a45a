"""From records to a feature matrix, and rejects with their reasons. Pure.

`schemas.event.parse_event` says what an event is. Reading it that way costs about 25 us an
event of 57 features, so the shapes that nearly all events have go through a reader compiled
for the contract by msgspec (2 to 3 us), which is stricter: whatever it does not take goes to
`parse_event`, whose word is final. The rule that ties the two: what the compiled reader takes,
`parse_event` takes too, with the same result (`tests/worker/test_decode.py` searches for a
counter-example).

Each decoded object dies before the next is made: 2.5 us against 4.4 us an event when the
objects of 4,096 events live at once.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Annotated, Any

import msgspec
import numpy as np

from schemas.contract import Contract
from schemas.event import (
    EVENT_BYTES_MAX,
    EVENT_ID_CHARS_MAX,
    TIMESTAMP_MS_MAX,
    EventLayout,
    InvalidEvent,
    Path,
    parse_event,
    timestamp_ms,
)
from worker.turn import Batch, Records, Reject

Number = float | None
# Whatever these say, `parse_event` gets to see the record.
_NOT_TAKEN = (
    AttributeError,  # An array of features where the id or the time stand among named ones.
    msgspec.MsgspecError,
    UnicodeDecodeError,
    RecursionError,
    OverflowError,
    TypeError,
    ValueError,
    struct.error,
    InvalidEvent,
)


class Decoder:
    """Reads the records of one contract's events."""

    def __init__(self, contract: Contract) -> None:
        self._layout = contract.layout
        self._paths = contract.paths
        self._width = len(contract.paths)
        self._pack_into = struct.Struct(f"={self._width}f").pack_into
        self._read = compile_reader(contract.layout, contract.paths)

    def decode(self, records: Records) -> Batch:
        """Sort a turn's records into events and rejects; none is without a place."""
        features = np.empty((len(records), self._width), np.float32)
        rows: list[int] = []
        event_ids: list[str] = []
        timestamps: list[int] = []
        rejects: list[Reject] = []
        row_bytes = 4 * self._width
        place = 0
        read, pack_into, matrix = self._read, self._pack_into, features.data
        for row, value in enumerate(records.values):
            try:
                event_id, timestamp, numbers = read(value)
                try:
                    pack_into(matrix, place, *numbers)
                except struct.error:
                    pack_into(matrix, place, *_null_as_nan(numbers))
            except _NOT_TAKEN:
                try:
                    event = parse_event(value, self._layout, self._paths)
                except InvalidEvent as invalid:
                    rejects.append(Reject(row, invalid.reason, invalid.detail))
                    continue
                event_id, timestamp = event.event_id, event.timestamp_ms
                pack_into(matrix, place, *event.features)
            place += row_bytes
            rows.append(row)
            event_ids.append(_place_of(records, row) if event_id is None else event_id)
            timestamps.append(records.timestamps_ms[row] if timestamp is None else timestamp)
        return Batch(features[: len(rows)], rows, event_ids, timestamps, rejects)


Reader = Callable[[bytes | None], tuple[str | None, int | None, Sequence[Number]]]


def compile_reader(layout: EventLayout, paths: Sequence[Path]) -> Reader:
    """Return a fast reader of common events; it raises one of `_NOT_TAKEN` for all others."""
    fields = _fields(layout, paths)
    if fields is None:
        return _takes_nothing
    decode = msgspec.json.Decoder(_struct_type(fields)).decode
    attributes = _attributes(fields)
    head = attrgetter(attributes[layout.event_id], attributes[layout.timestamp])
    held = attrgetter(attributes[layout.features]) if layout.features else None
    below = fields
    for key in layout.features:
        below = below[key]
    features_below = _attributes(below)
    named = _getter([features_below[path] for path in paths])
    kind = layout.timestamp_kind

    def read(value: bytes | None) -> tuple[str | None, int | None, Sequence[Number]]:
        if value is None or len(value) > EVENT_BYTES_MAX:
            raise ValueError
        event = decode(value)
        event_id, timestamp = head(event)
        if event_id.__class__ is int:
            event_id = str(event_id)
        if timestamp.__class__ is not int or kind != "ms" or timestamp > TIMESTAMP_MS_MAX:
            timestamp = timestamp_ms(timestamp, kind)
        features = event if held is None else held(event)
        return event_id, timestamp, features if features.__class__ is list else named(features)

    return read


def _null_as_nan(numbers: Sequence[Number]) -> list[float]:
    return [math.nan if number is None else number for number in numbers]


def _place_of(records: Records, row: int) -> str:
    return f"{records.topic}-{records.partitions[row]}-{records.offsets[row]}"


def _takes_nothing(_: bytes | None) -> tuple[None, None, Sequence[Number]]:
    raise ValueError


# A tree of keys; a leaf is the type that stands there.
Tree = dict[str, Any]

_EVENT_ID = (
    Annotated[str, msgspec.Meta(min_length=1, max_length=EVENT_ID_CHARS_MAX)]
    | Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
    | None
)
_TIMESTAMPS: dict[str, Any] = {
    "ms": Annotated[int, msgspec.Meta(ge=0)] | float | None,
    "s": int | float | None,
    "rfc3339": str | None,
}


def _fields(layout: EventLayout, paths: Sequence[Path]) -> Tree | None:
    """Return the tree of an event's keys, or None where two of the contract's places collide."""
    tree: Tree = {}
    places = [
        (layout.event_id, _EVENT_ID),
        (layout.timestamp, _TIMESTAMPS[layout.timestamp_kind]),
        *(((*layout.features, *path), Number) for path in paths),
    ]
    for path, leaf in places:
        node = tree
        for key in path[:-1]:
            node = node.setdefault(key, {})
            if not isinstance(node, dict):
                return None
        if path[-1] in node:
            return None
        node[path[-1]] = leaf
    if layout.features:
        node = tree
        for key in layout.features[:-1]:
            node = node[key]
        node[layout.features[-1]] = _Features(node[layout.features[-1]])
    return tree


class _Features(dict[str, Any]):
    """The node that holds the features: it may be an array instead of an object."""


def _struct_type(tree: Tree) -> type[msgspec.Struct]:
    """Return a type for the tree; absent numbers are NaN, absent objects empty."""
    names = {_name(place): key for place, key in enumerate(tree)}
    fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
    for name, key in names.items():
        below = tree[key]
        if isinstance(below, _Features):
            # No default: an event without features is for `parse_event` to name.
            fields.append((name, list[Number] | _struct_type(below)))
        elif isinstance(below, dict):
            nested = _struct_type(below)
            fields.append((name, nested, msgspec.field(default_factory=nested)))
        else:
            fields.append((name, below, math.nan if below is Number else None))
    return msgspec.defstruct("Fields", fields, rename=names, kw_only=True, gc=False)


def _attributes(tree: Tree) -> dict[Path, str]:
    """Return, for every place in the tree, the dotted attribute of `_struct_type(tree)` there."""
    attributes: dict[Path, str] = {}
    for place, (key, below) in enumerate(tree.items()):
        attributes[key,] = _name(place)
        if isinstance(below, dict):
            attributes |= {
                (key, *path): f"{_name(place)}.{attribute}"
                for path, attribute in _attributes(below).items()
            }
    return attributes


def _name(place: int) -> str:
    return f"f{place}"


def _getter(attributes: list[str]) -> Callable[[Any], Sequence[Number]]:
    if len(attributes) > 1:
        return attrgetter(*attributes)
    single = attrgetter(attributes[0])
    return lambda held: (single(held),)
