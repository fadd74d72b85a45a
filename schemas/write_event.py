"""Writing an event as JSON in any layout: what `schemas.event` reads, the other way round.

For those who have events as numbers and want them as a topic holds them: `odradek-worker score`
on a table, the demonstration, tests.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec

from schemas.event import EPOCH, MILLISECOND, EventLayout, Path, TimestampKind


def encode_event(
    layout: EventLayout,
    paths: Sequence[Path],
    *,
    event_id: str | None,
    timestamp_ms: int | None,
    features: Sequence[float | str],
    group: tuple[Path, str] | None = None,
) -> bytes:
    """Return an event of this layout as JSON; NaN is written as null, named where it must be.

    A category is given as its text, a group with its place from the top. Features are an array,
    or named where something else stands among them, for which an array has no place.

    Raises:
        ValueError: a feature is infinite, which JSON cannot say.
    """
    if any(not isinstance(value, str) and math.isinf(value) for value in features):
        raise ValueError("an infinite feature cannot be written as JSON")
    event: dict[str, Any] = {}
    if event_id is not None:
        _put(event, layout.event_id, event_id)
    if timestamp_ms is not None:
        _put(event, layout.timestamp, _write_timestamp(timestamp_ms, layout.timestamp_kind))
    if group is not None:
        _put(event, *group)
    depth = len(layout.features)
    beside = (layout.event_id, layout.timestamp, *((group[0],) if group else ()))
    if any(path[:depth] == layout.features for path in beside):
        for path, value in zip(paths, features, strict=True):
            _put(event, layout.features + path, value)
    else:
        _put(event, layout.features, list(features))
    return msgspec.json.encode(event)  # msgspec writes NaN as null.


def _write_timestamp(milliseconds: int, kind: TimestampKind) -> int | float | str:
    if kind == "ms":
        return milliseconds
    if kind == "s":
        return milliseconds / 1000
    return (EPOCH + milliseconds * MILLISECOND).isoformat()


def _put(target: dict[str, Any], path: Path, value: Any) -> None:  # noqa: ANN401
    for key in path[:-1]:
        target = target.setdefault(key, {})
    target[path[-1]] = value
