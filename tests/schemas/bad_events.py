"""The table of bad events: every reason that is decided by bytes, and why each stands there."""

from __future__ import annotations

from schemas.category import CATEGORY_CHARS_MAX, Codes
from schemas.dead_letter import Reason
from schemas.event import EVENT_BYTES_MAX, EVENT_ID_CHARS_MAX


def _features(value: bytes) -> bytes:
    return b'{"features":[1,2,' + value + b"]}"


# Name -> (bytes, reason, part of the detail); three features x0, x1, x2, milliseconds.
BAD_EVENTS: dict[str, tuple[bytes | None, Reason, str]] = {
    "a tombstone": (None, Reason.TOMBSTONE, "no value"),
    "empty": (b"", Reason.NOT_JSON, "not JSON"),
    "white space": (b" \n", Reason.NOT_JSON, "not JSON"),
    "text": (b"hello", Reason.NOT_JSON, "not JSON"),
    "truncated": (b'{"features":[1,2', Reason.NOT_JSON, "not JSON"),
    "single quotes": (b"{'features':[1,2,3]}", Reason.NOT_JSON, "not JSON"),
    "a trailing comma": (b'{"features":[1,2,3],}', Reason.NOT_JSON, "not JSON"),
    "two objects": (b'{"features":[1,2,3]}{}', Reason.NOT_JSON, "Extra data"),
    "a byte order mark": (b'\xef\xbb\xbf{"features":[1,2,3]}', Reason.NOT_JSON, "BOM"),
    "a raw control character": (b'{"event_id":"\x01","features":[1,2,3]}', Reason.NOT_JSON, "cont"),
    "a leading zero": (_features(b"01"), Reason.NOT_JSON, "not JSON"),
    "Avro": (b"\x00\x00\x00\x00\x07\x02\xff\xfe", Reason.NOT_UTF8, "not UTF-8"),
    "Latin-1": (b'{"event_id":"caf\xe9', Reason.NOT_UTF8, "not UTF-8"),
    "UTF-16": ('{"features":[1,2,3]}'.encode("utf-16"), Reason.NOT_UTF8, "not UTF-8"),
    "too deep": (b"[" * 100_000, Reason.TOO_DEEP, "nested"),
    "too large": (b" " * (EVENT_BYTES_MAX + 1), Reason.TOO_LARGE, "1,048,577"),
    "an array": (b"[1,2,3]", Reason.NOT_AN_OBJECT, "an array"),
    "a number": (b"7", Reason.NOT_AN_OBJECT, "a number"),
    "null": (b"null", Reason.NOT_AN_OBJECT, "null"),
    "a string": (b'"x"', Reason.NOT_AN_OBJECT, "a string"),
    "no features": (b'{"event_id":"e"}', Reason.NO_FEATURES, "nothing stands"),
    "features null": (b'{"features":null}', Reason.NO_FEATURES, "nothing stands"),
    "too few": (b'{"features":[1,2]}', Reason.WRONG_COUNT, "2 features; the model wants 3"),
    "too many": (b'{"features":[1,2,3,4]}', Reason.WRONG_COUNT, "4 features"),
    "none": (b'{"features":[]}', Reason.WRONG_COUNT, "0 features"),
    "features a number": (b'{"features":3}', Reason.WRONG_SHAPE, "a number"),
    "features a string": (b'{"features":"1,2,3"}', Reason.WRONG_SHAPE, "a string"),
    "a list for a number": (_features(b"[3]"), Reason.WRONG_SHAPE, "feature 2 is an array"),
    "an object for a number": (
        b'{"features":{"x1":{"value":1}}}',
        Reason.WRONG_SHAPE,
        "feature x1 is an object",
    ),
    "NaN": (_features(b"NaN"), Reason.NOT_FINITE, "NaN"),
    "Infinity": (_features(b"Infinity"), Reason.NOT_FINITE, "Infinity"),
    "-Infinity": (_features(b"-Infinity"), Reason.NOT_FINITE, "-Infinity"),
    "NaN in a field that nobody reads": (
        b'{"features":[1,2,3],"other":NaN}',
        Reason.NOT_FINITE,
        "NaN",
    ),
    "beyond float32": (_features(b"1e39"), Reason.BEYOND_FLOAT32, "1e+39"),
    "beyond float32 below": (_features(b"-3.5e38"), Reason.BEYOND_FLOAT32, "-3.5e+38"),
    "just beyond float32": (
        _features(b"3.4028235677973366e38"),
        Reason.BEYOND_FLOAT32,
        "beyond a 32-bit float",
    ),
    "an integer that rounds beyond float32": (
        _features(b"340282356779733661637539395458142568447"),
        Reason.BEYOND_FLOAT32,
        "beyond a 32-bit float",
    ),
    "beyond a double": (_features(b"1e400"), Reason.BEYOND_FLOAT32, "inf"),
    "an integer of 400 digits": (_features(b"1" * 400), Reason.BEYOND_FLOAT32, "beyond"),
    "an integer of 5000 digits": (_features(b"-" + b"9" * 5000), Reason.BEYOND_FLOAT32, "-inf"),
    "true": (_features(b"true"), Reason.BOOLEAN, "feature 2 is a boolean"),
    "false": (b'{"features":{"x0":false}}', Reason.BOOLEAN, "feature x0 is a boolean"),
    "a number as text": (_features(b'"1.5"'), Reason.TEXT, "'1.5'"),
    "empty text": (_features(b'""'), Reason.TEXT, "feature 2"),
    "long text": (_features(b'"' + b"x" * 1000 + b'"'), Reason.TEXT, "..."),
    "an id that is an object": (b'{"event_id":{},"features":[1,2,3]}', Reason.BAD_EVENT_ID, "obj"),
    "an id that is a boolean": (
        b'{"event_id":true,"features":[1,2,3]}',
        Reason.BAD_EVENT_ID,
        "a boolean",
    ),
    "an id that is a fraction": (
        b'{"event_id":1.5,"features":[1,2,3]}',
        Reason.BAD_EVENT_ID,
        "a number",
    ),
    "an id too long": (
        b'{"event_id":"%s","features":[1,2,3]}' % (b"i" * (EVENT_ID_CHARS_MAX + 1)),
        Reason.BAD_EVENT_ID,
        "513 characters",
    ),
    "an id with half a surrogate": (
        rb'{"event_id":"\ud800","features":[1,2,3]}',
        Reason.BAD_EVENT_ID,
        "UTF-8",
    ),
    "an id that is not UTF-8": (
        b'{"event_id":"\xff","features":[1,2,3]}',
        Reason.BAD_EVENT_ID,
        "UTF-8",
    ),
    "a time as text": (
        b'{"timestamp":"1700000000000","features":[1,2,3]}',
        Reason.BAD_TIMESTAMP,
        "a string; wanted epoch ms",
    ),
    "a time that is a boolean": (
        b'{"timestamp":true,"features":[1,2,3]}',
        Reason.BAD_TIMESTAMP,
        "a boolean",
    ),
    "a time before 1970": (
        b'{"timestamp":-1,"features":[1,2,3]}',
        Reason.BAD_TIMESTAMP,
        "outside the years",
    ),
    "a time after 9999": (
        b'{"timestamp":253402300800000,"features":[1,2,3]}',
        Reason.BAD_TIMESTAMP,
        "outside the years",
    ),
    "a time that is infinite": (
        b'{"timestamp":1e400,"features":[1,2,3]}',
        Reason.BAD_TIMESTAMP,
        "inf",
    ),
    "a time of 400 digits": (
        b'{"timestamp":' + b"1" * 400 + b',"features":[1,2,3]}',
        Reason.BAD_TIMESTAMP,
        "outside the years",
    ),
}


def _category(value: bytes) -> bytes:
    return b'{"features":[1,' + value + b",3]}"


# As above, where x1 is a category.
CODES = (None, Codes.of(("tcp", "udp")), None)
BAD_CATEGORIES: dict[str, tuple[bytes, Reason, str]] = {
    "a fraction": (_category(b"1.5"), Reason.BAD_CATEGORY, "feature 1 is a number; wanted a cat"),
    "a whole number written as a fraction": (_category(b"1.0"), Reason.BAD_CATEGORY, "a number"),
    "a number with an exponent": (_category(b"1e3"), Reason.BAD_CATEGORY, "a number"),
    "an integer of 301 digits": (_category(b"1" * 301), Reason.BAD_CATEGORY, "a number"),
    "a boolean": (b'{"features":{"x1":true}}', Reason.BAD_CATEGORY, "feature x1 is a boolean"),
    "an array": (_category(b'["tcp"]'), Reason.BAD_CATEGORY, "an array"),
    "an object": (_category(b"{}"), Reason.BAD_CATEGORY, "an object"),
    "too long": (
        _category(b'"%s"' % (b"t" * (CATEGORY_CHARS_MAX + 1))),
        Reason.BAD_CATEGORY,
        "257 characters long; wanted at most 256",
    ),
    "an integer of 257 digits": (_category(b"1" * 257), Reason.BAD_CATEGORY, "257 characters"),
    "half a surrogate": (_category(rb'"\ud800"'), Reason.BAD_CATEGORY, "valid UTF-8"),
    "not UTF-8": (_category(b'"\xff"'), Reason.BAD_CATEGORY, "valid UTF-8"),
    "NaN": (_category(b"NaN"), Reason.NOT_FINITE, "NaN"),
    "a text for a number beside it": (b'{"features":["tcp","tcp",3]}', Reason.TEXT, "feature 0"),
    "too few": (b'{"features":[1,"tcp"]}', Reason.WRONG_COUNT, "2 features; the model wants 3"),
}
