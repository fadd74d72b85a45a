"""The packed event: a record whose value is the features as 32-bit floats, and nothing else.

| part | where |
|---|---|
| features | the value: little-endian IEEE 754 binary32, in the contract's order, 4 bytes each |
| missing feature | NaN, any of them |
| category | its code: a whole number, the place in the contract's list; their number if unseen |
| event id | the header `event-id`, else the key, where it is UTF-8 text of 1 to 512 characters |
| group | the header `event-group`, for models that judge by one which is no feature |
| time | the record's own timestamp, epoch milliseconds |
| that it is packed | the header `content-type` = `application/vnd.odradek.float32`, or a setting |

Without an id, the event's place in its topic stands in, as for JSON. A value of another length,
an infinite feature, a code that the contract does not have and a header `event-id` that is no such
text are an `InvalidEvent`; a header `event-group` that names none counts as absent. The same values
give the same result as in JSON. 57 features take 228 bytes, and about 590 as JSON.

A code says what it means only together with the list that it was taken from. One beyond the list,
negative or a fraction shows that the sender had another list, or none: it is refused, and not
scored as unseen.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

from schemas.category import FeatureCodes
from schemas.dead_letter import Headers, Reason
from schemas.event import EVENT_ID_CHARS_MAX, InvalidEvent, ParsedEvent
from schemas.groups import group_bytes

CONTENT_TYPE_HEADER = "content-type"
PACKED = b"application/vnd.odradek.float32"
EVENT_ID_HEADER = "event-id"
GROUP_HEADER = "event-group"
FEATURE_BYTES = 4


def parse_packed(
    value: bytes | None,
    key: bytes | None,
    headers: Headers | None,
    features: int,
    codes: FeatureCodes = (),
) -> ParsedEvent:
    """Read one packed event of so many features. Its time is its record's, so None here.

    `codes` may be left out if all features are numbers.

    Raises:
        InvalidEvent: for every value that is not such an event.
    """
    if value is None:
        raise InvalidEvent(Reason.TOMBSTONE, "the record has no value; wanted packed floats")
    if len(value) != FEATURE_BYTES * features:
        raise InvalidEvent(
            Reason.WRONG_COUNT,
            f"{len(value):,} bytes; {features:,} packed features are {FEATURE_BYTES * features:,}",
        )
    numbers = [*struct.unpack(f"<{features}f", value)]
    for place, number in enumerate(numbers):
        if math.isinf(number):
            raise InvalidEvent(
                Reason.NOT_FINITE,
                f"feature {place} is infinite; wanted a number, or NaN",
            )
    for place, known in enumerate(codes):
        if known is not None and not is_code(numbers[place], len(known)):
            raise InvalidEvent(
                Reason.BAD_CATEGORY,
                f"feature {place} is {numbers[place]:g}; wanted a category's code, a whole number "
                f"from 0 to {len(known):,}, or NaN",
            )
    return ParsedEvent(packed_event_id(key, headers), None, numbers)


def is_code(number: float, known: int) -> bool:
    """Return whether it is the code of a category of so many known texts, or missing."""
    return math.isnan(number) or (number.is_integer() and 0 <= number <= known)


def packed_event_id(key: bytes | None, headers: Headers | None) -> str | None:
    """Return the id of a packed event: its header's, else its key's where that is text.

    Raises:
        InvalidEvent: the header is no text of 1 to 512 characters.
    """
    given = next((v for name, v in headers or () if name == EVENT_ID_HEADER), None)
    if given is None:
        return _text(key)
    if (event_id := _text(given)) is None:
        raise InvalidEvent(
            Reason.BAD_EVENT_ID,
            f"the header {EVENT_ID_HEADER} holds {len(given):,} bytes; wanted UTF-8 of 1 to "
            f"{EVENT_ID_CHARS_MAX} characters",
        )
    return event_id


def packed_group(headers: Headers | None) -> str | None:
    """Return the group of a packed event; None if its header names none."""
    given = (value for name, value in headers or () if name == GROUP_HEADER)
    return group_bytes(next(given, None))


def encode_packed(features: Sequence[float]) -> bytes:
    """Return the value of a packed event; NaN where a feature is missing.

    Raises:
        ValueError: a feature is infinite.
        OverflowError: one is beyond a 32-bit float.
    """
    if any(math.isinf(number) for number in features):
        raise ValueError("an infinite feature is no number; NaN says that it is missing")
    return struct.pack(f"<{len(features)}f", *features)


def _text(raw: bytes | None) -> str | None:
    try:
        text = raw.decode() if raw else ""
    except UnicodeDecodeError:
        return None
    return text if 0 < len(text) <= EVENT_ID_CHARS_MAX else None
