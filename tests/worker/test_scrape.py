"""What a page of metrics may say: nothing that it says ends the view."""

from __future__ import annotations

import io
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from worker import scrape as module
from worker.scrape import Between, Scrape, check
from worker.top import Seen, view

PAGE = """\
process_start_time_seconds 1
odradek_ready 1
odradek_alive 1
odradek_held{hold="rejects"} 1
odradek_model_info{name="m",version="1",digest="d",provider="cpu"} 1
odradek_model_loads_total{outcome="accepted"} 1
odradek_model_created_timestamp_seconds 1000
odradek_target_flag_rate 0.01
odradek_expected_flag_rate 0.01
odradek_expected_flag_rate_stddev 0.001
odradek_records_total{outcome="normal"} 990
odradek_records_total{outcome="anomalous"} 10
odradek_dead_letters_total{reason="not_json"} 4
odradek_lag_records{partition="0"} 5
odradek_lag_records{partition="1"} 6
odradek_turn_stage_seconds_sum{stage="read"} 1
odradek_turn_stage_seconds_count{stage="read"} 1
odradek_flagged_events_total{feature="amount"} 10
odradek_feature_drift_psi{feature="hour"} 0.31
odradek_event_latency_seconds_bucket{le="0.1"} 3
odradek_event_latency_seconds_bucket{le="+Inf"} 4
"""
LINES = PAGE.splitlines()
NUMBERS = st.one_of(
    st.floats().map(repr),
    st.integers().map(str),
    st.sampled_from(["+Inf", "-Inf", "NaN", "2", "0", "-0", "5e-324", "1e-320", "1e15", "9" * 400]),
)
PIECES = st.sampled_from(
    ["{", "}", '"', ",", "=", "\\", "\n", " ", "#", "\x1b", "le", "\u2028", "x"]
)


def read(text: str, at: float = 1.0) -> Scrape:
    page = Scrape.of(io.StringIO(text), at)
    check(page)
    return page


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """The page of a worker, some lines of which have another value, label, letter, or are many."""
    lines = list(LINES)
    for place in draw(st.lists(st.integers(0, len(LINES) - 1), min_size=1, max_size=4)):
        line = lines[place]
        head, _, value = line.rpartition(" ")
        cut = draw(st.integers(0, len(line)))
        lines[place] = draw(
            st.one_of(
                NUMBERS.map(lambda number, head=head: f"{head} {number}"),
                st.just(f"{head.partition('{')[0]} {value}"),
                st.just(f"{line}\n{line}"),
                st.just(""),
                PIECES.map(lambda piece, line=line, cut=cut: line[:cut] + piece + line[cut:]),
                st.text(max_size=5).map(lambda t, line=line, cut=cut: line[:cut] + t + line[cut:]),
                st.just(line[:cut]),
            )
        )
    return "\n".join(lines) + "\n"


@given(mutated(), st.sampled_from(["", PAGE]))
@example(PAGE.replace(" 0.01", " 5e-324"), "")
@example(PAGE.replace(" 990", " 0.5").replace(" 10\n", " 0\n").replace(" 0.001", " 1"), "")
@example(PAGE.replace('hold="rejects"', 'hold="\x1b[2J"'), "")
def test_whatever_a_page_says_it_is_refused_or_shown(text, before):
    try:
        after = read(text)
    except ValueError:
        return
    between = Between(read(before, 0.0) if before else Scrape(0.0), after)
    lines = view([Seen("w:1", between, between)], now=1e9)
    assert all(line.text.isprintable() for line in lines)


def test_a_page_as_it_should_be_is_shown_whole():
    between = Between(Scrape(0.0), read(PAGE))
    text = "\n".join(line.text for line in view([Seen("w:1", between, between)], now=1e9))
    for part in ("holds: rejects", "m 1 on cpu", "1 % of 1,000", "not_json 4", "hour 0.31"):
        assert part in text


@pytest.mark.parametrize(
    ("line", "instead", "told"),
    [
        (4, "odradek_model_info 1", "odradek_model_info has no label 'name'"),
        (19, 'odradek_event_latency_seconds_bucket{le="abc"} 3', "a bucket le='abc'"),
        (10, 'odradek_records_total{outcome="normal"} +Inf', "odradek_records_total is inf"),
        (13, 'odradek_lag_records{partition="0"} NaN', "odradek_lag_records is nan"),
        (8, "odradek_expected_flag_rate 2", "odradek_expected_flag_rate is 2; wanted 0 to 1"),
        (1, "", "not with a worker's metrics: odradek_ready is not there"),
        (1, 'odradek_ready{ ="x"} 1', "does not answer with metrics"),
        (1, f"odradek_ready {'9' * 400}", "does not answer with metrics: OverflowError"),
    ],
)
def test_what_is_no_workers_says_why(line, instead, told):
    with pytest.raises(ValueError, match=told):
        read("\n".join([*LINES[:line], instead, *LINES[line + 1 :]]))


def test_an_empty_page_is_no_workers():
    with pytest.raises(ValueError, match="not with a worker's metrics"):
        read("")


def test_a_page_is_read_until_the_deadline_only():
    text = "x 1\n" * 1_000_000
    began = time.monotonic()
    with pytest.raises(TimeoutError, match="that could be read in it"):
        Scrape.of(module._lines(text, began + 0.2), 0.0)
    assert time.monotonic() - began < 2


def test_a_name_may_have_other_ends_of_lines():
    text = PAGE.replace("amount", "a\u2028b\x0cc")
    page = Scrape.of(module._lines(text, time.monotonic() + 30), 0.0)
    assert page.value("odradek_flagged_events_total", feature="a\u2028b\x0cc") == 10


def test_a_line_has_an_end():
    with pytest.raises(ValueError, match="a line has 100003 characters"):
        Scrape.of(module._lines("x" * 100_000 + " 1\n", time.monotonic() + 30), 0.0)


def test_many_labels_take_no_more_than_their_number():
    """Each was once looked up among all: 20,000 took minutes."""
    text = "".join(f'odradek_flagged_events_total{{feature="{n}"}} 1\n' for n in range(20_000))
    page = Scrape.of(io.StringIO(text), 1.0)
    began = time.process_time()
    assert len(Between(Scrape(0.0), page).increases("odradek_flagged_events_total", "feature"))
    assert time.process_time() - began < 2
