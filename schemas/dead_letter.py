"""The dead letter: a record that cannot be scored, kept whole.

On the dead-letter topic the value, the key and the headers of the record are the original
ones, byte for byte. What we know about it stands in headers of our own, all of which begin
with `odradek.`; they come after the record's own. `DeadLetter` is those headers.

A record that is too large for the dead-letter topic becomes a stub: the first `STUB_BYTES` of its
value (none, and no key, where even that is too much), with `original_bytes` and `original_sha256`
in our headers and none of its own. The record itself stays where it came from, at its source
position.
"""

from __future__ import annotations

import hashlib
import re
from enum import StrEnum

import msgspec

DEAD_LETTER_VERSION = 1
HEADER_PREFIX = "odradek."
ATTEMPTS_HEADER = HEADER_PREFIX + "attempts"
STUB_BYTES = 64 * 1024
DETAIL_CHARS_MAX = 500

Headers = list[tuple[str, bytes | None]]


class Reason(StrEnum):
    """Why a record cannot be scored. Closed: the metric's label and the tests' table are this."""

    TOMBSTONE = "tombstone"  # The record has no value.
    TOO_LARGE = "too_large"  # More bytes than `EVENT_BYTES_MAX`.
    NOT_UTF8 = "not_utf8"  # Neither JSON nor valid UTF-8.
    NOT_JSON = "not_json"  # Valid UTF-8, but not JSON.
    TOO_DEEP = "too_deep"  # JSON nested beyond what a parser follows.
    NOT_AN_OBJECT = "not_an_object"  # JSON, but not an object at the top.
    NO_FEATURES = "no_features"  # Nothing stands where the features belong.
    WRONG_COUNT = "wrong_count"  # An array of features of another length than the contract's.
    WRONG_SHAPE = "wrong_shape"  # An array or object where a number belongs, or the reverse.
    NOT_FINITE = "not_finite"  # A NaN or Infinity, which JSON does not have.
    BEYOND_FLOAT32 = "beyond_float32"  # A number too large for a 32-bit float.
    BOOLEAN = "boolean"  # true or false where a number belongs.
    TEXT = "text"  # A string where a number belongs, "1.5" included.
    BAD_CATEGORY = "bad_category"  # No text where a category belongs, or far too long; no code.
    BAD_EVENT_ID = "bad_event_id"  # The id is neither a string nor an integer, or far too long.
    BAD_TIMESTAMP = "bad_timestamp"  # The time is not of the kind that the contract names.


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the headers of a dead letter say. Text on the wire: `odradek.<field>` = UTF-8.

    `source_*` is where the record was read; `model_*` the model that served at that time.
    `source_timestamp` is that record's own time, epoch milliseconds. `original_bytes` and
    `original_sha256` are set on a stub only. `attempts` says how often the record was found
    wanting; absent means once, and each redrive that fails adds one.
    """

    schema_version: int
    reason: Reason
    detail: str
    source_topic: str
    source_partition: int
    source_offset: int
    model_name: str
    model_version: str
    model_digest: str
    original_bytes: int | None = None
    original_sha256: str | None = None
    source_timestamp: int | None = None
    attempts: int = 1

    def to_headers(self) -> Headers:
        """Return the headers in the order of the fields; what is as by default is left out."""
        values = ((name, getattr(self, name)) for name in self.__struct_fields__)
        return [
            (HEADER_PREFIX + name, str(value).encode())
            for name, value in values
            if value is not None and (name != "attempts" or value > 1)
        ]

    @classmethod
    def from_headers(cls, headers: Headers) -> DeadLetter:
        """Read our headers back, whatever others stand beside them.

        Raises:
            msgspec.ValidationError: a header of ours is missing or not of its type.
        """
        try:
            ours = {
                name.removeprefix(HEADER_PREFIX): value.decode()
                for name, value in headers
                if name.startswith(HEADER_PREFIX) and value is not None
            }
        except UnicodeDecodeError as error:
            raise msgspec.ValidationError(f"a header is not UTF-8: {error}") from None
        return msgspec.convert(ours, cls, strict=False)

    def as_stub(self, value: bytes) -> DeadLetter:
        """Return the letter of a record too large to be kept: what `value` was, not itself."""
        return msgspec.structs.replace(
            self,
            original_bytes=len(value),
            original_sha256=hashlib.sha256(value).hexdigest(),
        )


def without_ours(headers: Headers | None) -> Headers:
    """Return a record's own headers, without those that an earlier dead letter added."""
    return [header for header in headers or () if not header[0].startswith(HEADER_PREFIX)]


def attempts_header(attempts: int) -> tuple[str, bytes]:
    """Return what a record carries that is tried again, having failed so often."""
    return ATTEMPTS_HEADER, str(attempts).encode()


def attempts_before(headers: Headers | None) -> int:
    """Return how often a record has failed before, by the header of its redrive; rubbish is 0."""
    given = [value for name, value in headers or () if name == ATTEMPTS_HEADER]
    text = (given[-1] if given else None) or b""
    return int(text) if re.fullmatch(rb"[0-9]{1,9}", text) else 0
