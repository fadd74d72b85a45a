"""The second reader of JSON: a type that msgspec compiles for one layout of events. Pure.

It takes the common events of any contract, with or without categories; whatever it refuses, in
whichever way, `schemas.event.parse_event` gets to see.
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

from schemas.category import CATEGORY_CHARS_MAX, FeatureCodes
from schemas.event import (
    EVENT_BYTES_MAX,
    EVENT_ID_CHARS_MAX,
    TIMESTAMP_MS_MAX,
    EventLayout,
    InvalidEvent,
    Path,
    timestamp_ms,
)

Number = float | None
# What it raises for an event that it does not take.
NOT_TAKEN = (
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

# An event's id, time, features and group.
Read = tuple[str | None, int | None, Sequence[Number], str | None]
Reader = Callable[[bytes | None], Read]


def compile_reader(
    layout: EventLayout,
    paths: Sequence[Path],
    codes: FeatureCodes = (),
    group: Path | None = None,
) -> Reader:
    """Return a fast reader of common events; it raises one of `NOT_TAKEN` for all others.

    `codes` as in `parse_event`; `group` is where an event has its group, from the top.
    """
    kinds = [Number if of is None else _Category for of in codes or [None] * len(paths)]
    fields = _fields(layout, paths, kinds, group)
    if fields is None:
        return _takes_nothing
    # An array is typed by place only where it must be: a list of numbers is read faster.
    sequence: type = tuple if _Category in kinds else list
    array = GenericAlias(sequence, tuple(kinds) if sequence is tuple else Number)
    decode = msgspec.json.Decoder(_struct_type(fields, array)).decode
    attributes = _attributes(fields)
    head = attrgetter(attributes[layout.event_id], attributes[layout.timestamp])
    group_of = None if group is None else attrgetter(attributes[group])
    held = attrgetter(attributes[layout.features]) if layout.features else None
    below = fields
    for key in layout.features:
        below = below[key]
    features_below = _attributes(below)
    named = _getter([features_below[path] for path in paths])
    kind = layout.timestamp_kind

    def read(value: bytes | None) -> Read:
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
        if group_of is None:
            return event_id, timestamp, features, None
        of = group_of(event)
        return event_id, timestamp, features, str(of) if of.__class__ is int else of

    return read if sequence is list else _coding(read, codes)


def _coding(read: Callable[[bytes | None], Any], codes: FeatureCodes) -> Reader:
    """Return a reader that gives categories their codes, of one that gives their texts."""
    categories = [(place, of) for place, of in enumerate(codes) if of is not None]

    def read_coded(value: bytes | None) -> Read:
        event_id, timestamp, features, group = read(value)
        numbers = [*features]
        for place, code_of in categories:
            text = numbers[place]
            if text is not None:
                numbers[place] = code_of[text if text.__class__ is str else str(text)]
        return event_id, timestamp, numbers, group

    return read_coded


def _takes_nothing(_: bytes | None) -> Read:
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


def _fields(
    layout: EventLayout, paths: Sequence[Path], kinds: Sequence[Any], group: Path | None
) -> Tree | None:
    """Return the tree of an event's keys.

    None where two of the contract's places collide, or msgspec compiles no such key.
    """
    tree: Tree = {}
    places = [
        (layout.event_id, _EVENT_ID),
        (layout.timestamp, _TIMESTAMPS[layout.timestamp_kind]),
        *(((*layout.features, *path), kind) for path, kind in zip(paths, kinds, strict=True)),
    ]
    if group is not None:
        places.append((group, _Category))
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
