"""W3C Trace Context in the headers of a record: https://www.w3.org/TR/trace-context-2/. Pure.

The worker takes no part in an event's trace. It passes these headers on as it does all others,
unchanged, malformed ones too: OpenTelemetry asks that the context in which a message was created
is not modified on its way. What is read here is read for the links of a turn's span.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from schemas.dead_letter import Headers

TRACEPARENT, TRACESTATE = "traceparent", "tracestate"
TRACEPARENT_BYTES = 55  # Of version 00, the only one so far.
SAMPLED = 0x01  # The flag: whoever wrote this header may have recorded its span.
# At most so long is either in an output that had to be made smaller. The specification asks for
# 512 characters of tracestate to be propagated.
KEPT_BYTES_MAX = 512

_TRACEPARENT = re.compile(
    rb"[ \t]*(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})"
    rb"(-.*|[ \t]*)"
)


class TraceParent(NamedTuple):
    """A well-formed traceparent."""

    trace_id: int
    span_id: int
    flags: int


def read_traceparent(value: bytes) -> TraceParent | None:
    """Return what a traceparent says; None where it is malformed and must be ignored."""
    if len(value) > KEPT_BYTES_MAX or (match := _TRACEPARENT.fullmatch(value)) is None:
        return None
    version, trace_id, span_id, flags, rest = match.groups()
    if version == b"00" and rest.startswith(b"-"):
        return None  # Only a later version may say more.
    return TraceParent(int(trace_id, 16), int(span_id, 16), int(flags, 16))


def short_trace_headers(headers: Headers) -> Headers:
    """Return the trace context among the headers of an output too large to keep them all."""
    return [
        (name, value)
        for name, value in headers
        if name in (TRACEPARENT, TRACESTATE) and len(value or b"") <= KEPT_BYTES_MAX
    ]
