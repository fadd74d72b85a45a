"""The demonstration: its parts, and the whole of it as a person runs it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from demo import events
from demo.books import Books
from demo.view import RateMeter, gave_away, what_is
from schemas.dead_letter import DEAD_LETTER_VERSION, DeadLetter, Reason
from schemas.event import EventLayout, InvalidEvent, parse_event
from schemas.score import SCORE_VERSION, ModelRef, Score, Source, TopFeature

MODEL = ModelRef("m", "1", "0" * 64)
PATHS = [(name,) for name in events.FEATURES]


def a_score(offset: int, verdict: str = "normal", event_id: str = "ordinary-1-1") -> Score:
    return Score(
        schema_version=SCORE_VERSION,
        event_id=event_id,
        timestamp=1000,
        score=1.0,
        p_value=0.5,
        threshold=2.0,
        verdict=verdict,
        model=MODEL,
        source=Source("events", 0, offset),
        top_features=[TopFeature("pt", 12.0, 0.001, 0.75), TopFeature("eta", None, 1.0, 0.25)],
    )


def test_what_is_streamed_was_not_trained_on():
    shipped = events.load()
    trained = {row.tobytes() for row in shipped.train}
    streamed = shipped.stream[events.NORMAL]
    assert len(shipped.train) == 20_920
    assert len(streamed) == 5_230
    # A few collisions are equal by chance (the emptiest ones).
    assert np.mean([row.tobytes() in trained for row in streamed]) < 0.01


def test_a_plan_holds_what_was_asked_for_and_only_the_rubbish_is_no_event():
    planned = list(events.plan(events.load(), events=2000, rubbish=26, seed=1))
    kinds = Counter(events.kind_of(event.name) for event in planned)
    assert kinds["rubbish"] == 26
    assert sum(kinds.values()) == 2026
    assert 0 < sum(kinds[kind] for kind in events.ANOMALIES) <= 250
    reasons = Counter()
    for event in planned:
        try:
            parse_event(event.value(1000), EventLayout(), PATHS)
        except InvalidEvent as invalid:
            assert events.kind_of(event.name) == "rubbish"
            reasons[invalid.reason] += 1
        else:
            assert events.kind_of(event.name) != "rubbish"
    assert len(reasons) >= 11, "rubbish of many kinds"


def test_the_books_tell_lost_from_repeated():
    books = Books()
    books.score(a_score(0), now_ms=1010)
    books.score(a_score(1, "anomalous"), now_ms=1010)
    books.score(a_score(1, "anomalous"), now_ms=1010)
    books.dead_letter(
        DeadLetter(
            schema_version=DEAD_LETTER_VERSION,
            reason=Reason.NOT_JSON,
            detail="",
            source_topic="events",
            source_partition=0,
            source_offset=2,
            model_name="m",
            model_version="1",
            model_digest="",
        )
    )
    sent = {(0, 0): "ordinary-0", (0, 1): "a4l-0", (0, 2): "rubbish-0", (0, 3): "a4l-1"}
    assert books.missing(sent) == {(0, 3)}
    assert books.repeats == 1
    assert books.flagged == 1
    assert books.flagged_by_kind(sent)["a4l"] == (1, 2)
    assert books.latency_ms() == (10.0, 10.0)


def test_the_view_says_what_an_event_is_and_what_gave_it_away():
    score = a_score(0, "anomalous", event_id="a4l-00003-000017")
    assert what_is(score) == "A -> 4 leptons"
    assert gave_away(score) == "pt 12 (expected 0) 75%; eta missing (expected 1) 25%"


def test_the_rate_is_that_of_the_last_moments():
    meter = RateMeter()
    assert meter.rate(0, now=0.0) == 0.0
    assert meter.rate(1000, now=1.0) == 1000.0
    assert meter.rate(9000, now=10.0) == 0.0  # All that is older than the window is forgotten.
    assert meter.rate(9500, now=10.5) == 1000.0


def run_demo(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "demo", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def processes_of(session: int) -> list[str]:
    """The command lines of a session's and its children's sessions' processes."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes()
            if f"DEMO_TEST_RUN={session}".encode() in environment:
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


@pytest.fixture
def marked(monkeypatch: pytest.MonkeyPatch) -> int:
    """Mark what this test starts, and what that starts, so that it can be found."""
    mark = time.monotonic_ns()
    monkeypatch.setenv("DEMO_TEST_RUN", str(mark))
    return mark


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_the_whole_demo_loses_nothing_though_the_worker_is_killed(marked: int):
    demo = run_demo("--seconds", "4", "--rate", "1500", "--kill")
    output, _ = demo.communicate(timeout=240)
    assert demo.returncode == 0, output
    assert "Nothing was lost." in output
    assert re.search(r"worker starts\W+2\b", output), output
    assert not processes_of(marked)


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_ctrl_c_leaves_no_process_behind(marked: int):
    demo = run_demo("--seconds", "60")
    assert demo.stdout
    for line in demo.stdout:
        if "on held-out events" in line:  # The model trains, the broker starts or runs.
            break
    os.killpg(demo.pid, signal.SIGINT)
    output, _ = demo.communicate(timeout=60)
    assert demo.returncode == 130, output
    assert "Stopped" in output
    assert not processes_of(marked)
