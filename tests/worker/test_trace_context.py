"""What a traceparent says, as the OpenTelemetry API reads it, and which links a turn gets."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.trace import get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from schemas.dead_letter import DeadLetter, Headers, Reason
from schemas.score import decode_score
from tests.builders import a_model, an_event, records
from worker.outputs import Form, Output, shrink_dead_letter, shrink_score
from worker.results import to_results
from worker.span_links import links_of
from worker.trace_context import KEPT_BYTES_MAX, read_traceparent

WELL_FORMED = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
MALFORMED = (
    b"",
    b"rubbish",
    b"\xff\x00",
    WELL_FORMED[:-1],
    WELL_FORMED.upper(),
    WELL_FORMED + b"-more",  # Version 00 has no more.
    b"ff" + WELL_FORMED[2:],  # No version.
    b"00-" + b"0" * 32 + WELL_FORMED[35:],  # No trace.
    WELL_FORMED[:36] + b"0" * 16 + b"-01",  # No span.
    b"01" + WELL_FORMED[2:] + b"-" + b"x" * KEPT_BYTES_MAX,
)


def a_context(number: int, *, sampled: bool = True) -> bytes:
    return b"00-%032x-%016x-%02x" % (number + 1, number + 1, sampled)


def some(column: list[Headers | None]):
    return replace(records([b"{}"] * len(column)), headers=column)


@pytest.mark.parametrize("value", MALFORMED)
def test_a_malformed_traceparent_is_ignored(value):
    assert read_traceparent(value) is None
    found = links_of(some([[("traceparent", value), ("tracestate", b"a=1")]]), 5)
    assert (found.links, found.malformed) == ([], 1)


@given(
    st.from_regex(
        r"[ \t]{0,2}(00|01|fe|ff|0)-(0{32}|[0-9a-fA]{31,33})-(0{16}|[0-9a-f]{15,17})-[0-9a-f]{2}"
        r"(-[ -~]{0,5})?[ \t]{0,2}",
        fullmatch=True,
    )
)
def test_a_traceparent_is_read_as_the_opentelemetry_api_reads_it(text):
    context = TraceContextTextMapPropagator().extract({"traceparent": text})
    theirs = get_current_span(context).get_span_context()
    ours = read_traceparent(text.encode())
    assert (ours is not None) == theirs.is_valid
    if ours is not None:
        assert ours == (theirs.trace_id, theirs.span_id, theirs.trace_flags)


@given(
    st.lists(st.sampled_from(["none", "other", "sampled", "unsampled", "malformed", "two"])),
    st.integers(0, 5),
)
def test_every_event_that_names_a_context_is_linked_or_counted(kinds, links_max):
    def headers(kind: str, row: int) -> Headers | None:
        sampled, unsampled = a_context(row), a_context(row, sampled=False)
        of_kind: dict[str, Headers | None] = {
            "none": None,
            "other": [("content-type", b"json")],
            "sampled": [("other", None), ("traceparent", sampled)],
            "unsampled": [("traceparent", unsampled)],
            "malformed": [("traceparent", None)],
            "two": [("traceparent", sampled), ("traceparent", sampled)],
        }
        return of_kind[kind]

    found = links_of(some([headers(kind, row) for row, kind in enumerate(kinds)]), links_max)
    sampled = [row for row, kind in enumerate(kinds) if kind == "sampled"]
    assert [link.context.trace_id - 1 for link in found.links] == sampled[:links_max]
    assert [link.attributes["messaging.kafka.offset"] for link in found.links] == sampled[
        :links_max
    ]
    last = sampled[links_max - 1] + 1 if 0 < links_max <= len(sampled) else len(kinds)
    looked_at = kinds[: last if links_max else 0]
    naming = [kind for kind in kinds if kind not in ("none", "other")]
    assert found.unsampled == looked_at.count("unsampled")
    assert found.malformed == looked_at.count("malformed") + looked_at.count("two")
    assert len(found.links) + found.left_out + found.unsampled + found.malformed == len(naming)


@given(st.lists(st.tuples(st.sampled_from(["traceparent", "tracestate"]), st.binary())))
def test_whatever_bytes_the_headers_hold_a_turn_gets_its_links(headers):
    links_of(some([[("traceparent", WELL_FORMED), ("tracestate", b"a=1"), *headers], headers]), 5)


def test_events_of_one_context_share_a_link():
    found = links_of(some([[("traceparent", WELL_FORMED)]] * 3), 1)  # And none is left out.
    assert (len(found.links), found.left_out) == (1, 0)


def test_both_outputs_carry_the_trace_and_keep_it_when_they_are_made_smaller():
    trace: Headers = [("traceparent", WELL_FORMED), ("tracestate", b"a=1")]
    headers: Headers = [*trace, ("large", b"x" * 999), ("tracestate", b"y" * 999)]
    taken = replace(records([an_event(1, 2, 3), b"rubbish"]), headers=[headers, headers])
    model = a_model()
    batch = model.decoder.decode(taken)
    outputs = to_results(taken, batch, model.score(batch.features), model, 5)
    (score,), (letter,) = outputs.scores.headers, outputs.dead_letters.headers
    assert score == headers
    assert letter[: len(headers)] == headers
    whole = Output("scores", outputs.scores.values[0], b"k", score)
    smaller = shrink_score(whole, Form.SMALLER)
    assert smaller.headers == trace
    assert decode_score(smaller.value or b"").truncated
    assert shrink_score(smaller, Form.SMALLEST).headers == []
    stub = shrink_dead_letter(Output("dead-letters", b"rubbish", b"k", letter), Form.SMALLER)
    assert stub.headers[:2] == trace
    assert DeadLetter.from_headers(stub.headers).reason is Reason.NOT_JSON
    least = shrink_dead_letter(stub, Form.SMALLEST)
    assert least.headers == DeadLetter.from_headers(stub.headers).to_headers()
    assert (least.value, least.key) == (b"", None)
