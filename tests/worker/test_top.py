"""`odradek-worker top`: what it makes of workers' metrics, and what it leaves of the terminal."""

from __future__ import annotations

import io
import math
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    generate_latest,
    start_http_server,
)

from schemas.errors import SettingsError
from tests.components import within
from tests.endpoints import a_page, answering, at_once, drip, in_a_terminal
from trainer.bands import flag_count_chances
from worker.batch_histogram import BatchHistogram
from worker.health import Health
from worker.http import serve_http
from worker.metrics import Metrics
from worker.scrape import Between, Scrape
from worker.top import Line, Seen, band, columns, cut, view
from worker.top_command import GIVE_UP_S, ONCE_S, Watched, frame, look, top

WORKER = """
process_start_time_seconds {start}
odradek_ready {ready}
odradek_alive 1
odradek_held{{hold="rejects"}} {held}
odradek_model_info{{name="{name}",version="v7",digest="d-{name}",provider="cpu"}} 1
odradek_model_loads_total{{outcome="accepted"}} {loads}
odradek_model_created_timestamp_seconds 1000
odradek_target_flag_rate 0.01
odradek_expected_flag_rate 0.01
odradek_expected_flag_rate_stddev 0.001
odradek_records_total{{outcome="normal"}} {normal}
odradek_records_total{{outcome="anomalous"}} {anomalous}
odradek_dead_letters_total{{reason="not_json"}} {dead}
odradek_lag_records{{partition="0"}} 5
odradek_lag_records{{partition="1"}} 1200
odradek_turn_stage_seconds_sum{{stage="read"}} {read}
odradek_turn_stage_seconds_count{{stage="read"}} {read}
odradek_turn_stage_seconds_sum{{stage="score"}} 1
odradek_flagged_events_total{{feature="amount\x1b[2J"}} {anomalous}
odradek_feature_drift_psi{{feature="hour"}} 0.31
"""


def at(
    when: float,
    *,
    start: float = 1.0,
    ready: int = 1,
    held: int = 0,
    normal: int = 0,
    anomalous: int = 0,
    dead: int = 0,
    read: float = 0.0,
    name: str = "lhc",
    loads: int = 1,
) -> Scrape:
    text = WORKER.format(
        start=start,
        ready=ready,
        held=held,
        normal=normal,
        anomalous=anomalous,
        dead=dead,
        read=read,
        name=name,
        loads=loads,
    )
    return Scrape.of(io.StringIO(text), when)


def shown(before: Scrape, after: Scrape) -> list[Line]:
    between = Between(before, after)
    return view([Seen("w:1", between, between)], now=1000 + 7200)


def test_a_worker_is_one_row_and_what_it_did_is_between_two_looks():
    lines = shown(
        at(10, normal=1_000, anomalous=10, read=1),
        at(12, normal=2_980, anomalous=30, dead=4, read=4),
    )

    assert lines[0].heading
    row = lines[1].text
    assert not lines[1].alarming
    for part in ("w:1", "ready", "lhc v7 on cpu, 2 h old", "1,000", "1 % of 2,000", "1 %", "2.0"):
        assert f" {part} " in f" {row} ", part
    assert "1,205 (partition 1: 1,200)" in row
    text = [line.text for line in lines]
    assert "  read 100% (1 s)" in text
    assert "  not_json 4" in text
    assert "  hour 0.31" in text
    assert "  amount?[2J 20" in text, "what a terminal would obey is not passed on"


@pytest.mark.parametrize(
    ("after", "state"),
    [
        (at(12, ready=0), "not ready"),
        (at(12, ready=0, held=1), "holds: rejects"),
        (at(12, start=11.0, normal=50), "restarted"),
    ],
)
def test_what_is_not_as_it_should_be_is_said_and_stands_out(after, state):
    row = shown(at(10, normal=1_000), after)[1]
    assert state in row.text
    assert row.alarming


def test_a_worker_that_started_anew_did_what_it_counted_since():
    between = Between(at(10, normal=1_000), at(12, start=11.0, normal=50))
    assert between.increase("odradek_records_total") == 50


@pytest.mark.parametrize(("anomalous", "mark"), [(100, "1 % of 10,000"), (200, "high"), (0, "low")])
def test_a_flag_rate_is_marked_only_where_chance_does_not_explain_it(anomalous, mark):
    row = shown(at(0), at(1, normal=10_000 - anomalous, anomalous=anomalous))[1].text
    assert mark in row
    assert ("high" in row or "low" in row) == (anomalous != 100)


def test_few_events_mark_nothing():
    assert "high" not in shown(at(0), at(1, normal=98, anomalous=2))[1].text


@given(st.data())
def test_the_band_leaves_out_what_chance_does_once_in_250_looks_at_most(data):
    n = data.draw(st.integers(20, 20_000), "calibration events")
    k = data.draw(st.integers(1, max(1, n // 10)), "at or above the threshold")
    m = data.draw(st.integers(1, 20_000), "scored events")
    p = k / (n + 1)
    low, high = band(p, math.sqrt(p * (1 - p) / (n + 2)), m)

    chances = flag_count_chances(k, n, m)
    shares = np.arange(m + 1) / m
    assert chances[shares < low].sum() < 0.004
    assert chances[shares > high].sum() < 0.004
    assert low <= p <= high


def test_the_band_of_many_events_is_not_so_wide_that_it_holds_anything():
    assert band(0.01, 0.0, 1e6) == pytest.approx((0.0097, 0.0103), abs=1e-5)


def test_flags_of_several_models_are_held_against_none():
    row = shown(Scrape(0.0), at(1, normal=5_000, anomalous=5_000, loads=2))[1].text
    assert "50 % of 10,000 by several models  1 %     -  " in row


def test_wide_letters_leave_the_columns_where_they_are():
    empty = Scrape(0.0)
    wide, narrow = (Between(empty, at(1, normal=1, name=name)) for name in ("支払い", "abcdef"))
    _, first, second, *_ = view([Seen("w:1", wide, wide), Seen("w:2", narrow, narrow)], now=1000.0)
    assert columns(first.text) == columns(second.text)
    assert cut("支払い", 5) == "支払"


def test_one_that_does_not_answer_keeps_its_row_and_its_reason():
    lines = view([Seen("w:1", problem="Connection refused")], now=0.0)
    assert "no answer" in lines[1].text
    assert lines[2].text == "  w:1: Connection refused"


@given(st.lists(st.floats(0.001, 30), min_size=1, max_size=200), st.sampled_from([0.5, 0.99]))
def test_a_quantile_lies_in_the_bucket_of_the_true_one(values, q):
    registry, bounds = CollectorRegistry(), (0.01, 0.1, 1.0, 10.0)
    BatchHistogram("times", "Times.", bounds, registry).observe_all(np.array(values))
    empty, full = Scrape(0.0), Scrape.of(io.StringIO(generate_latest(registry).decode()), 1.0)

    found = Between(empty, full).quantile("times", q)

    true = float(np.quantile(values, q, method="inverted_cdf"))
    edges = [0.0, *bounds, 10.0]
    place = int(np.searchsorted(bounds, true))
    assert found is not None
    assert edges[place] <= found <= edges[place + 1]
    assert Between(full, full).quantile("times", q) is None


def test_lines_are_cut_to_the_terminal_and_coloured_only_if_asked():
    lines = [Line("x" * 50, alarming=True), Line("y"), Line("z")]
    size = os.terminal_size((10, 3))
    assert "\x1b[31m" + "x" * 10 + "\x1b[0m" in frame(lines, size, coloured=True)
    plain = frame(lines, size, coloured=False)
    assert "\x1b[31m" not in plain
    assert "z" not in plain


@pytest.fixture
def address() -> Iterator[str]:
    """Where a worker's metrics are served."""
    health = Health(60.0, last_beat=0.0, joined=True)
    metrics = Metrics()
    metrics.watch_health(health, lambda: 1.0)
    server = serve_http("127.0.0.1", 0, metrics.registry, health, lambda: 1.0)
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_once_is_plain_text_and_its_exit_code_says_whether_all_answered(address, capsys):
    assert top(["--once", address]) == 0
    assert "ready" in capsys.readouterr().out
    assert top(["--once", address, "127.0.0.1:1"]) == 1
    said = capsys.readouterr().out
    assert "no answer" in said
    assert "127.0.0.1:1: [Errno 111] Connection refused" in said
    assert "\x1b" not in said


def test_flags_are_counted_anew_with_each_model():
    registry = CollectorRegistry()
    Gauge("odradek_ready", "", registry=registry)
    texts = ["name", "version", "digest", "provider"]
    info = Gauge("odradek_model_info", "", texts, registry=registry)
    flagged = Counter("odradek_flagged_events", "", ["feature"], registry=registry)
    server, _ = start_http_server(0, "127.0.0.1", registry)
    watched = Watched(f"http://127.0.0.1:{server.server_port}/metrics")

    def flags() -> tuple[float, float]:
        look([watched])
        seen = watched.seen(since_start=False)
        assert seen.lately is not None
        assert seen.long is not None
        return tuple(
            between.increase("odradek_flagged_events_total") for between in (seen.lately, seen.long)
        )

    info.labels("m", "1", "first", "cpu").set(1)
    assert flags() == (0, 0)
    flagged.labels("amount").inc(5)
    assert flags() == (5, 5)
    flagged.labels("amount").inc(5)
    assert flags() == (5, 10)
    info.clear()
    info.labels("m", "2", "second", "cpu").set(1)
    flagged.labels("amount").inc(7)
    assert flags() == (7, 0), "these may be of either"
    flagged.labels("amount").inc(1)
    assert flags() == (1, 1)
    server.shutdown()
    server.server_close()


def test_a_proxy_for_the_world_outside_is_not_asked_for_a_worker(address, monkeypatch, capsys):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert top(["--once", address]) == 0, capsys.readouterr().out


@pytest.mark.parametrize("argument", ["nonsense", "ftp://h:1", "h:port", "--evry=3"])
def test_a_wrong_argument_is_refused(argument):
    with pytest.raises(SettingsError, match="Nothing was asked"):
        top([argument])


def test_one_that_drips_takes_no_line_from_the_others_and_once_ends(address, capsys):
    with answering(drip(b"HTTP/1.1 200 OK\r\n")) as bad:
        began = time.monotonic()
        assert top(["--once", bad, address]) == 1
        took_s = time.monotonic() - began
    said = capsys.readouterr().out
    assert f"  {bad}: no whole answer within 2 s" in said
    assert f"{address}  ready" in said
    assert took_s < 2 * GIVE_UP_S + ONCE_S + 1


def test_one_that_gave_no_answer_is_asked_again():
    pages = iter([drip(b"HTTP/1.1"), at_once(a_page("odradek_ready 1\n"))])
    with answering(lambda connection: next(pages)(connection)) as endpoint:
        watched = Watched(f"http://{endpoint}/metrics")
        look([watched])
        assert not watched.answers
        look([watched])
        assert watched.answers


def test_another_exporter_is_no_worker(capsys):
    registry = CollectorRegistry()
    Gauge("node_load1", "", registry=registry).set(1)
    page = a_page(generate_latest(registry).decode())
    with answering(at_once(page)) as endpoint:
        assert top(["--once", endpoint]) == 1
    said = capsys.readouterr().out
    assert "no answer" in said
    assert "not with a worker's metrics: odradek_ready is not there" in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("head", [b"HTTP/1.1 2", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"])
def test_it_ends_at_once_while_an_endpoint_drips(address, number, head):
    asked = threading.Event()

    def endless(connection: socket.socket) -> None:
        asked.set()
        drip(head)(connection)

    with answering(endless) as bad, in_a_terminal("--every", "0.1", bad, address) as (child, drew):
        assert asked.wait(30)
        assert within(lambda: drew(b"\x1b[?1049h"))
        began = time.monotonic()
        child.send_signal(number)
        assert within(lambda: drew(b"\x1b[?25h\x1b[?1049l"))
        assert child.wait(10) == 0
        assert time.monotonic() - began < 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_terminal_is_left_as_it_was(address, number):
    with in_a_terminal("--every", "0.1", address) as (child, drew):
        assert within(lambda: drew(b"ready"))
        child.send_signal(number)
        assert within(lambda: drew(b"\x1b[?25h\x1b[?1049l"))
        assert child.wait(10) == 0
