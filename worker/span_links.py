"""Which of a turn's events its span links to: a bounded number, and what was left out counted.

An event is linked to where its producer created it. One whose producer says that it recorded
nothing (the sampled flag is not set) is not: there would be nothing at the other end, and links
are few. A malformed traceparent is ignored, as the specification has it; so is one that is not
alone in its record. Events of one context share a link. A link has no tracestate: the exporter
sends none.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from opentelemetry.trace import SpanContext, TraceFlags

from worker.trace_context import (
    SAMPLED,
    TRACEPARENT,
    TRACEPARENT_BYTES,
    TraceParent,
    read_traceparent,
)
from worker.turn import Records


class Link(NamedTuple):
    """A context, and the first event of the turn that names it."""

    context: SpanContext
    attributes: dict[str, str | int]


@dataclass
class Links:
    """The links of a turn, and how many of its events have none although they name a context."""

    links: list[Link] = field(default_factory=list)
    left_out: int = 0  # Not looked at: there were as many links as may be.
    unsampled: int = 0
    malformed: int = 0


def links_of(records: Records, links_max: int) -> Links:
    """Return the links to the first `links_max` sampled contexts that these records name."""
    found = Links()
    linked: set[bytes | None] = set()
    for row, headers in enumerate(records.headers):
        if not headers:
            continue
        values = [value for name, value in headers if name == TRACEPARENT]
        if not values or values[0] in linked:
            continue
        if len(linked) >= links_max:
            found.left_out += 1
            continue
        value = (values[0] or b"") if len(values) == 1 else b""
        if value.endswith(b"-00") and len(value) == TRACEPARENT_BYTES:
            found.unsampled += 1  # Mostly, nearly all are: reading them would take three times it.
        elif (parent := read_traceparent(value)) is None:
            found.malformed += 1
        elif not parent.flags & SAMPLED:
            found.unsampled += 1
        else:
            linked.add(value)
            found.links.append(_link(records, row, parent))
    return found


def _link(records: Records, row: int, parent: TraceParent) -> Link:
    trace_id, span_id, flags = parent
    context = SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags))
    attributes: dict[str, str | int] = {
        "messaging.destination.partition.id": str(records.partitions[row]),
        "messaging.kafka.offset": records.offsets[row],
    }
    return Link(context, attributes)
