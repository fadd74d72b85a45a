"""Holds: each change is one log line, a gauge, and what /readyz says."""

from __future__ import annotations

import logging

import pytest

from worker.health import Health
from worker.hold import Hold, Holds
from worker.metrics import Metrics


class Bench:
    def __init__(self) -> None:
        self.health = Health(60.0, last_beat=0.0, joined=True)
        self.metrics = Metrics()
        self.holds = Holds(self.health, self.metrics)

    def gauge(self, hold: Hold) -> float | None:
        return self.metrics.registry.get_sample_value("odradek_held", {"hold": hold})


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_nothing_holds_at_first_and_the_gauges_are_there(bench):
    assert not bench.holds
    assert [bench.gauge(hold) for hold in Hold] == [0.0] * len(Hold)
    assert bench.health.why_not_ready(1.0) is None


@pytest.mark.parametrize("hold", Hold)
def test_a_hold_is_alive_and_not_ready_and_says_why(hold, bench, caplog):
    bench.holds.begin(hold, "the disk is full. Look at it")
    assert hold in bench.holds
    assert bench.holds
    assert bench.gauge(hold) == 1.0
    assert bench.health.why_not_ready(1.0) == "holding: the disk is full. Look at it"
    assert bench.health.why_not_alive(1.0) is None
    assert caplog.messages == ["Holding: the disk is full. Look at it"]
    assert caplog.records[0].levelno == logging.ERROR


def test_a_hold_that_goes_on_is_told_once_with_its_first_reason(bench, caplog):
    for attempt in range(100):
        bench.holds.begin(Hold.OUTPUT, f"attempt {attempt}")
    assert caplog.messages == ["Holding: attempt 0"]
    assert bench.health.held == "attempt 0"


def test_its_end_is_told_once_and_clears_everything(bench, caplog):
    caplog.set_level("INFO")
    bench.holds.begin(Hold.REJECTS, "rubbish")
    for _ in range(3):
        bench.holds.end(Hold.REJECTS, "a new model is there.")
    assert caplog.messages == ["Holding: rubbish", "Going on: a new model is there."]
    assert not bench.holds
    assert bench.gauge(Hold.REJECTS) == 0.0
    assert bench.health.why_not_ready(1.0) is None


def test_several_holds_are_all_told_and_end_one_by_one(bench):
    bench.holds.begin(Hold.OUTPUT, "refused")
    bench.holds.begin(Hold.INPUT, "gone")
    assert bench.health.held == "refused; gone"
    bench.holds.end(Hold.OUTPUT, "taken.")
    assert bench.health.held == "gone"
    assert bench.holds
    assert (bench.gauge(Hold.OUTPUT), bench.gauge(Hold.INPUT)) == (0.0, 1.0)


def test_the_end_of_what_did_not_hold_is_no_news(bench, caplog):
    caplog.set_level("INFO")
    bench.holds.end(Hold.INPUT, "it is there.")
    assert not caplog.messages
