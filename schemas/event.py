"""What an event is, and the exact reading of one from JSON.

An event is a JSON object. By default:

    {"event_id": "e-1", "timestamp": 1700000000000, "features": {"pt": 54.7, "eta": -0.43}}

or with `"features": [54.7, -0.43]` in the contract's order. `EventLayout` moves each of the
three elsewhere in a user's own JSON. The rules:

- `event_id` is a string or an integer; absent or null, the event's place in its topic stands in.
- `timestamp` is of the layout's kind; absent or null, the record's own time stands in.
- a feature that is absent or null is missing (NaN); what becomes of it is the contract's policy.
- a category (`schemas.category`) is a string or an integer, missing if empty, and read as its code.
- an array of features has exactly the contract's length; of an object, names that the contract
  does not know are ignored, as are all other fields of the event.
- a key that occurs twice counts the last time.
- everything else is an `InvalidEvent` with its `Reason`; nothing is guessed or coerced.

`parse_event` is the definition. The worker reads the common shapes faster
(`worker.decode`), and a property test holds it to the same answers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NoReturn

import msgspec

from schemas.category import CATEGORY_CHARS_MAX, FeatureCodes
from schemas.dead_letter import Reason

EVENT_VERSION = 1
# One MiB is what a Kafka topic takes by default (message.max.bytes = 1,048,588).
EVENT_BYTES_MAX = 1024 * 1024
EVENT_ID_CHARS_MAX = 512
# 9999-12-31T23:59:59.999Z: later, and RFC 3339 and the languages' date types give up.
TIMESTAMP_MS_MAX = 253_402_300_799_999
# The largest double that rounds to a finite 32-bit float is just below this one.
FLOAT32_LIMIT = (2.0 - 2.0**-24) * 2.0**127
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)

Path = tuple[str, ...]
TimestampKind = Literal["ms", "s", "rfc3339"]


class InvalidEvent(Exception):
    """A record that is no event: `reason` from the closed list, `detail` for a person."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class EventLayout(msgspec.Struct, frozen=True, kw_only=True):
    """Where an event's parts stand in its JSON, as paths of keys from the top.

    `features` is the object or array that holds the features; the empty path is the event
    itself. `timestamp_kind` is epoch milliseconds, epoch seconds or RFC 3339 with an offset.
    """

    event_id: Path = ("event_id",)
    timestamp: Path = ("timestamp",)
    timestamp_kind: TimestampKind = "ms"
    features: Path = ("features",)


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """An event of the default layout, for the JSON Schema and for those who write events."""

    features: dict[str, float | str | None] | list[float | str | None]
    event_id: str | int | None = None
    timestamp: int | float | None = None


class ParsedEvent(msgspec.Struct, frozen=True):
    """An event as read: `features` in the contract's order, NaN where missing."""

    event_id: str | None
    timestamp_ms: int | None
    features: list[float]


def parse_event(
    value: bytes | None, layout: EventLayout, paths: Sequence[Path], codes: FeatureCodes = ()
) -> ParsedEvent:
    """Read one event exactly; `paths` are the features' places below `layout.features`.

    `codes` may be left out if all features are numbers.

    Raises:
        InvalidEvent: for every value, whatever bytes it holds, that is not such an event.
    """
    event = load_object(value)
    return ParsedEvent(
        _event_id(_follow(event, layout.event_id)),
        timestamp_ms(_follow(event, layout.timestamp), layout.timestamp_kind),
        _features(_follow(event, layout.features), paths, codes or [None] * len(paths)),
    )


def load_object(value: bytes | None) -> dict[str, Any]:
    """Return the JSON object that `value` holds.

    Raises:
        InvalidEvent: it is absent, too large, not JSON, or not an object.
    """
    if value is None:
        raise InvalidEvent(Reason.TOMBSTONE, "the record has no value; wanted a JSON object")
    if len(value) > EVENT_BYTES_MAX:
        raise InvalidEvent(
            Reason.TOO_LARGE, f"{len(value):,} bytes; at most {EVENT_BYTES_MAX:,} are read"
        )
    try:
        # A byte that is no UTF-8 in a field that nobody reads does no harm: let it through here,
        # as the fast reader does, and refuse it where it would come out again (the event's id).
        event = json.loads(
            value.decode("utf-8", "surrogateescape"),
            parse_int=_parse_int,
            parse_constant=_refuse_constant,
        )
    except RecursionError:
        raise InvalidEvent(Reason.TOO_DEEP, "the JSON is nested too deeply to read") from None
    except ValueError as error:
        _refuse_text(value, error)
    if not isinstance(event, dict):
        raise InvalidEvent(Reason.NOT_AN_OBJECT, f"the JSON is {_kind(event)}; wanted an object")
    return event


def timestamp_ms(value: Any, kind: TimestampKind) -> int | None:  # noqa: ANN401  # Any JSON value.
    """Return a time as epoch milliseconds, or None where there is none.

    Raises:
        InvalidEvent: it is not of this kind, or outside 1970 to 9999.
    """
    if value is None:
        return None
    if kind == "rfc3339":
        milliseconds = _rfc3339_ms(value)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        number = value if kind == "ms" else value * 1000.0
        milliseconds = round(number) if math.isfinite(number) else -1
    else:
        raise InvalidEvent(
            Reason.BAD_TIMESTAMP, f"the timestamp is {_kind(value)}; wanted epoch {kind}"
        )
    if not 0 <= milliseconds <= TIMESTAMP_MS_MAX:
        raise InvalidEvent(
            Reason.BAD_TIMESTAMP, f"the timestamp {_short(value)} is outside the years 1970 to 9999"
        )
    return milliseconds


def _rfc3339_ms(value: Any) -> int:  # noqa: ANN401
    wanted = "wanted RFC 3339 with an offset, such as 2026-01-31T12:00:00Z"
    if not isinstance(value, str):
        raise InvalidEvent(Reason.BAD_TIMESTAMP, f"the timestamp is {_kind(value)}; {wanted}")
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        moment = None
    # Without an offset it is a local time of somewhere; a date alone is no moment.
    if moment is None or moment.tzinfo is None:
        raise InvalidEvent(Reason.BAD_TIMESTAMP, f"the timestamp is {_short(value)}; {wanted}")
    return (moment - EPOCH) // MILLISECOND


def _event_id(value: Any) -> str | None:  # noqa: ANN401
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InvalidEvent(
            Reason.BAD_EVENT_ID, f"the event id is {_kind(value)}; wanted a string or an integer"
        )
    text = str(value)
    if len(text) > EVENT_ID_CHARS_MAX:
        raise InvalidEvent(
            Reason.BAD_EVENT_ID,
            f"the event id has {len(text):,} characters; at most {EVENT_ID_CHARS_MAX} are kept",
        )
    if not _is_utf8(text):
        raise InvalidEvent(Reason.BAD_EVENT_ID, "the event id is not valid UTF-8")
    return text


def _features(held: Any, paths: Sequence[Path], codes: FeatureCodes) -> list[float]:  # noqa: ANN401
    if held is None:
        raise InvalidEvent(Reason.NO_FEATURES, "nothing stands where the features belong")
    if isinstance(held, list):
        if len(held) != len(paths):
            raise InvalidEvent(
                Reason.WRONG_COUNT, f"{len(held):,} features; the model wants {len(paths):,}"
            )
        named = ((value, f"feature {place}") for place, value in enumerate(held))
    elif isinstance(held, dict):
        named = ((_follow(held, path), f"feature {'.'.join(path)}") for path in paths)
    else:
        raise InvalidEvent(
            Reason.WRONG_SHAPE, f"the features are {_kind(held)}; wanted an array or an object"
        )
    return [
        _number(value, what) if code is None else _category(value, what, code)
        for (value, what), code in zip(named, codes, strict=True)
    ]


def _follow(value: Any, path: Path) -> Any:  # noqa: ANN401
    """Return what stands at `path`, or None where the way ends early."""
    for key in path:
        if value is None:
            return None
        if not isinstance(value, dict):
            raise InvalidEvent(
                Reason.WRONG_SHAPE,
                f"{_kind(value)} stands above {key!r} of {'.'.join(path)}; wanted an object",
            )
        value = value.get(key)
    return value


def _number(value: Any, what: str) -> float:  # noqa: ANN401
    """Return a feature's value as a float that fits 32 bits; NaN where it is missing."""
    if value is None:
        return math.nan
    if isinstance(value, bool):
        raise InvalidEvent(Reason.BOOLEAN, f"{what} is a boolean; wanted a number or null")
    if isinstance(value, str):
        raise InvalidEvent(
            Reason.TEXT, f"{what} is the text {_short(value)}; wanted a number or null"
        )
    if not isinstance(value, int | float):
        raise InvalidEvent(Reason.WRONG_SHAPE, f"{what} is {_kind(value)}; wanted a number or null")
    number = float(value)  # First, because an integer just below the limit may round to it.
    if not -FLOAT32_LIMIT < number < FLOAT32_LIMIT:
        raise InvalidEvent(
            Reason.BEYOND_FLOAT32, f"{what} is {_short(value)}, beyond a 32-bit float"
        )
    return number


def _category(value: Any, what: str, codes: Mapping[str, int]) -> float:  # noqa: ANN401
    """Return a category's code; NaN where it is missing."""
    if value is None or value == "":
        return math.nan
    if isinstance(value, bool) or not isinstance(value, str | int):
        # A fraction would be another text from each program that writes it: 1.0, 1, 1e0.
        wanted = "wanted a category: a string, an integer or null"
        raise InvalidEvent(Reason.BAD_CATEGORY, f"{what} is {_kind(value)}; {wanted}")
    text = str(value)
    if len(text) > CATEGORY_CHARS_MAX or not _is_utf8(text):
        raise InvalidEvent(
            Reason.BAD_CATEGORY,
            f"{what} is the text {_short(text)}, {len(text):,} characters long; wanted at most "
            f"{CATEGORY_CHARS_MAX}, in valid UTF-8",
        )
    return codes[text]


def _parse_int(digits: str) -> int | float:
    # An integer that no double can hold would raise OverflowError wherever it is compared or
    # printed as one (and Python reads none of more than 4,300 digits). As a float it is large or
    # infinite, which the rules above refuse by name.
    return int(digits) if len(digits) <= 300 else float(digits)


def _refuse_constant(token: str) -> NoReturn:
    raise InvalidEvent(Reason.NOT_FINITE, f"the JSON holds {token}, which JSON does not have")


def _refuse_text(value: bytes, error: ValueError) -> NoReturn:
    try:
        value.decode()
    except UnicodeDecodeError as encoding:
        raise InvalidEvent(Reason.NOT_UTF8, f"not JSON, and not UTF-8: {encoding}") from None
    raise InvalidEvent(Reason.NOT_JSON, f"not JSON: {error}") from None


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _kind(value: Any) -> str:  # noqa: ANN401
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean"}
    return "null" if value is None else names.get(type(value), "a number")


def _short(value: Any) -> str:  # noqa: ANN401
    text = ascii(value) if isinstance(value, str) else f"{value:g}"
    return text if len(text) <= 40 else text[:37] + "..."
