"""Events from JSON lines, read by the same exact reader as the records of a topic.

Without a contract, the features are found: everything that is a number somewhere below the
layout's features or named as a category, in order of first appearance, named by its keys joined
with dots. Arrays are named f0, f1, ... by place. What is a number in one line must be one, null or
absent in every line, and arrays have one length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path as FilePath
from typing import Any

import numpy as np

from schemas.category import FeatureCodes
from schemas.contract import Feature
from schemas.datafiles.builder import Block, TableBuilder
from schemas.datafiles.categories import category_texts
from schemas.datafiles.table import (
    Bools,
    FileOptions,
    as_labels,
    require_column,
)
from schemas.dead_letter import Reason
from schemas.errors import DataError
from schemas.event import EventLayout, InvalidEvent, ParsedEvent, Path, load_object, parse_event


def read_json_lines(
    path: FilePath, options: FileOptions, wanted: Sequence[Feature] | None, builder: TableBuilder
) -> None:
    """Read one event a line; blank lines are skipped. The lines are held, all of them at once.

    Raises:
        DataError: a line is no event of the layout; the text names it.
    """
    _refuse_columns(path, options)
    lines = list(_lines(path))
    features, ignored = _discover(path, lines, options) if wanted is None else (wanted, ())
    names = tuple(feature.name for feature in features)
    paths = tuple(feature.path for feature in features)
    texts = category_texts(str(path), names, options, wanted, builder.categories)
    codes = [texts.get(name) for name in names]
    events = [_parse(path, number, line, options.layout, paths, codes) for number, line in lines]
    ids = [event.event_id for event in events if event.event_id is not None]
    times = [event.timestamp_ms for event in events if event.timestamp_ms is not None]
    rows = np.array([event.features for event in events], np.float64).reshape(-1, len(names))
    builder.begin(str(path), names, texts, paths, ignored)
    if events:
        builder.add(
            Block(
                rows,
                lambda row: f"line {lines[row][0]}",
                labels=_labels(path, lines, options),
                event_ids=ids if len(ids) == len(events) else None,
                timestamps_ms=times if len(times) == len(events) else None,
                groups=_groups(lines, options),
            ),
            options.group,
        )


def _refuse_columns(path: FilePath, options: FileOptions) -> None:
    for flag, value in (("id", options.id_column), ("timestamp", options.timestamp_column)):
        if value is not None:
            named = "event-id" if flag == "id" else flag
            raise DataError(
                f"{path} holds JSON events, which have no columns: --{flag}-column {value} does "
                f"not apply. Say where it stands in an event with --{named}-path"
            )


def _lines(path: FilePath) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, line


def _parse(
    path: FilePath,
    number: int,
    line: bytes,
    layout: EventLayout,
    paths: Sequence[Path],
    codes: FeatureCodes,
) -> ParsedEvent:
    try:
        return parse_event(line, layout, paths, codes)
    except InvalidEvent as error:
        more = ""
        if error.reason == Reason.WRONG_COUNT:
            more = (
                ". Arrays of features have one length, that of the first line or of the model: "
                "fill a shorter one up with null, or give each feature a name"
            )
        elif error.reason == Reason.TEXT:
            more = (
                ". If it is a category, name it with --category-column; a date is none, and no "
                "number: write what matters of it as one"
            )
        raise DataError(f"{path}, line {number}: {error.detail} ({error.reason}){more}") from None


def _discover(
    path: FilePath, lines: list[tuple[int, bytes]], options: FileOptions
) -> tuple[list[Feature], tuple[str, ...]]:
    """Return the features in order of first appearance, and what is never a number."""
    found: dict[Path, None] = {}
    everything: dict[Path, None] = {}
    skipped = _other_parts(options)
    for number, line in lines:
        held = _held(path, number, line, options.layout)
        if isinstance(held, list):
            places = [f"f{place}" for place in range(len(held))]
            return [Feature(name=name, path=(name,)) for name in places], ()
        for where, value in _leaves(held, ()):
            everything[where] = None
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            is_category = ".".join(where) in options.category_columns
            if (is_number or is_category) and where not in skipped:
                found[where] = None
    for name in (*options.drop_columns, *options.category_columns):
        require_column(str(path), name, [".".join(where) for where in everything])
    if not found:
        below = ".".join(options.layout.features) or "the event itself"
        raise DataError(
            f"{path} holds no number below {below}; wanted at least one feature. "
            "Say where the features stand with --features-path"
        )
    names = [".".join(where) for where in found]
    if len(set(names)) < len(names):
        odd = next(name for name in names if names.count(name) > 1)
        raise DataError(
            f"{path} has two features that would both be named {odd!r}, one of them by a key with "
            "a dot in it; wanted other keys"
        )
    ignored = tuple(".".join(where) for where in everything if where not in found.keys() | skipped)
    features = [Feature(name=name, path=at) for name, at in zip(names, found, strict=True)]
    return features, ignored


def _other_parts(options: FileOptions) -> set[Path]:
    """Return the paths, seen from the features, that are the event's id, time, label or dropped."""
    layout = options.layout
    label = tuple(options.label_column.split(".")) if options.label_column else ()
    group = options.group.place if options.group else ()
    root = len(layout.features)
    inside = {
        part[root:]
        for part in (layout.event_id, layout.timestamp, label, group)
        if part[:root] == layout.features
    }
    return inside | {tuple(name.split(".")) for name in options.drop_columns}


def _held(path: FilePath, number: int, line: bytes, layout: EventLayout) -> Any:  # noqa: ANN401
    """Return the object or array of features of one line."""
    # The exact reader speaks first: it knows every way in which a line can be wrong.
    try:
        held: Any = load_object(line)
    except InvalidEvent as error:
        raise DataError(f"{path}, line {number}: {error.detail} ({error.reason})") from None
    for key in layout.features:
        held = held.get(key) if isinstance(held, dict) else None
    if not isinstance(held, dict | list):
        raise DataError(
            f"{path}, line {number}: no object or array of features at "
            f"{'.'.join(layout.features)}. Say where they stand with --features-path"
        )
    return held


def _leaves(held: dict[str, Any], above: Path) -> Iterator[tuple[Path, Any]]:
    for key, value in held.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*above, key))
        else:
            yield (*above, key), value


def _labels(path: FilePath, lines: list[tuple[int, bytes]], options: FileOptions) -> Bools | None:
    column = options.label_column
    if column is None:
        return None
    values = [_value_at(line, column.split(".")) for _, line in lines]
    if options.label_optional and not any(value is not None for value in values):
        return None
    return as_labels(str(path), column, values, lambda row: f"line {lines[row][0]}")


def _groups(lines: list[tuple[int, bytes]], options: FileOptions) -> list[object] | None:
    group = options.group
    return None if group is None else [_value_at(line, group.place) for _, line in lines]


def _value_at(line: bytes, keys: Sequence[str]) -> object:
    value: Any = load_object(line)
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value
