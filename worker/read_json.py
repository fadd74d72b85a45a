"""Reads events from JSON, fast and exactly. Pure.

`schemas.event.parse_event` says what an event is. Reading it that way costs about 25 us an event
of 57 features, so three readers stand in a row, and each sees only what the one before it did
not take:

1. the scanner (`worker.scanner`), compiled from C where it could be: a whole batch at once, from
   bytes into the matrix, the plain shapes that nearly all events have. It reads numbers alone: a
   contract with categories begins with the second reader, at 2.5 times the cost an event;
2. a reader that msgspec compiles for the contract;
3. `parse_event`, whose word is final.

The rule that ties them: what a faster reader takes, `parse_event` takes too, with the same result
(`tests/worker/test_decode.py` and `test_scanner.py` search for a counter-example).

In the second reader, each decoded object dies before the next is made: 2.5 us against 4.4 us an
event when the objects of 4,096 events live at once.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Sequence
from operator import attrgetter
from types import GenericAlias
from typing import Annotated, Any

import msgspec
import numpy as np

from schemas.calibration import Floats
from schemas.category import CATEGORY_CHARS_MAX, FeatureCodes
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
from worker.scanner import Scanner, compile_scanner
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


class JsonReader:
    """Reads the JSON events of one contract; `scanner` is None where there is none."""

    def __init__(self, contract: Contract, scanner: Scanner | None) -> None:
        self._layout = contract.layout
        self._paths = contract.paths
        self._codes = contract.codes
        self._width = len(contract.paths)
        self._scanner = scanner
        self._pack_into = struct.Struct(f"={self._width}f").pack_into
        self._read = compile_reader(contract.layout, contract.paths, contract.codes)

    @classmethod
    def of(cls, contract: Contract) -> JsonReader:
        """Return the fastest reader there is."""
        if any(codes is not None for codes in contract.codes):
            return cls(contract, None)
        return cls(contract, compile_scanner(contract.layout, contract.paths))

    @property
    def scans(self) -> bool:
        """Whether it has a scanner."""
        return self._scanner is not None

    def read(self, records: Records) -> Batch:
        """Sort records into events and rejects; none is without a place."""
        count = len(records)
        features = np.empty((count, self._width), np.float32)
        event_ids: list[str | None] = [None] * count
        timestamps: list[int | None] = [None] * count
        rest: Sequence[int] = range(count)
        if self._scanner is not None:
            rest = self._scanner.scan(records.values, features, event_ids, timestamps)
        rejects = self._read_each(rest, records.values, features, event_ids, timestamps)
        return Batch.of(records, features, event_ids, timestamps, rejects)

    def _read_each(
        self,
        rows: Sequence[int],
        values: Sequence[bytes | None],
        features: Floats,
        event_ids: list[str | None],
        timestamps: list[int | None],
    ) -> list[Reject]:
        """Read these rows into their places; return those that are no events."""
        rejects: list[Reject] = []
        read, pack_into, matrix = self._read, self._pack_into, features.data
        row_bytes = 4 * self._width
        for row in rows:
            value = values[row]
            try:
                event_ids[row], timestamps[row], numbers = read(value)
                try:
                    pack_into(matrix, row * row_bytes, *numbers)
                except struct.error:
                    pack_into(matrix, row * row_bytes, *_null_as_nan(numbers))
            except _NOT_TAKEN:
                try:
                    event = parse_event(value, self._layout, self._paths, self._codes)
                except InvalidEvent as invalid:
                    rejects.append(Reject(row, invalid.reason, invalid.detail))
                    continue
                event_ids[row], timestamps[row] = event.event_id, event.timestamp_ms
                pack_into(matrix, row * row_bytes, *event.features)
        return rejects


Reader = Callable[[bytes | None], tuple[str | None, int | None, Sequence[Number]]]


def compile_reader(layout: EventLayout, paths: Sequence[Path], codes: FeatureCodes = ()) -> Reader:
    """Return a fast reader of common events; it raises one of `_NOT_TAKEN` for all others.

    `codes` as in `parse_event`.
    """
    kinds = [Number if of is None else _Category for of in codes or [None] * len(paths)]
    fields = _fields(layout, paths, kinds)
    if fields is None:
        return _takes_nothing
    # An array is typed by place only where it must be: a list of numbers is read faster.
    sequence: type = tuple if _Category in kinds else list
    array = GenericAlias(sequence, tuple(kinds) if sequence is tuple else Number)
    decode = msgspec.json.Decoder(_struct_type(fields, array)).decode
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
        features: Any = event if held is None else held(event)
        if features.__class__ is not sequence:
            features = named(features)
        return event_id, timestamp, features

    return read if sequence is list else _coding(read, codes)


def _coding(read: Callable[[bytes | None], Any], codes: FeatureCodes) -> Reader:
    """Return a reader that gives categories their codes, of one that gives their texts."""
    categories = [(place, of) for place, of in enumerate(codes) if of is not None]

    def read_coded(value: bytes | None) -> tuple[str | None, int | None, Sequence[Number]]:
        event_id, timestamp, features = read(value)
        numbers = [*features]
        for place, code_of in categories:
            text = numbers[place]
            if text is not None:
                numbers[place] = code_of[text if text.__class__ is str else str(text)]
        return event_id, timestamp, numbers

    return read_coded


def _null_as_nan(numbers: Sequence[Number]) -> list[float]:
    return [math.nan if number is None else number for number in numbers]


def _takes_nothing(_: bytes | None) -> tuple[None, None, Sequence[Number]]:
    raise ValueError


# A tree of keys; a leaf is the type that stands there.
Tree = dict[str, Any]

_EVENT_ID = (
    Annotated[str, msgspec.Meta(min_length=1, max_length=EVENT_ID_CHARS_MAX)]
    | Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
    | None
)
_Category = (
    Annotated[str, msgspec.Meta(min_length=1, max_length=CATEGORY_CHARS_MAX)]
    | Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
    | None
)
_TIMESTAMPS: dict[str, Any] = {
    "ms": Annotated[int, msgspec.Meta(ge=0)] | float | None,
    "s": int | float | None,
    "rfc3339": str | None,
}


# msgspec renames no field to what JSON would have to escape.
_NOT_COMPILED = re.compile(r'["\\\x00-\x1f]')


def _fields(layout: EventLayout, paths: Sequence[Path], kinds: Sequence[Any]) -> Tree | None:
    """Return the tree of an event's keys.

    None where two of the contract's places collide, or msgspec compiles no such key.
    """
    tree: Tree = {}
    places = [
        (layout.event_id, _EVENT_ID),
        (layout.timestamp, _TIMESTAMPS[layout.timestamp_kind]),
        *(((*layout.features, *path), kind) for path, kind in zip(paths, kinds, strict=True)),
    ]
    for path, leaf in places:
        if any(map(_NOT_COMPILED.search, path)):
            return None
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


def _struct_type(tree: Tree, array: Any) -> type[msgspec.Struct]:  # noqa: ANN401  # A type.
    """Return a type for the tree; absent numbers are NaN, absent objects empty.

    `array` is the type of the features where they are no object.
    """
    names = {_name(place): key for place, key in enumerate(tree)}
    fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
    for name, key in names.items():
        below = tree[key]
        if isinstance(below, _Features):
            # No default: an event without features is for `parse_event` to name.
            fields.append((name, array | _struct_type(below, array)))
        elif isinstance(below, dict):
            nested = _struct_type(below, array)
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
