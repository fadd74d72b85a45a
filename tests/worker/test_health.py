"""Alive is: the loop comes round. Ready is: joined, a broker answers, and not told to stop."""

from __future__ import annotations

from worker.health import Health


def a_health(**changes: bool) -> Health:
    return Health(stuck_after_s=120.0, last_beat=1000.0, **changes)


def test_a_worker_is_alive_until_its_loop_has_stood_still_too_long():
    health = a_health()
    assert health.why_not_alive(1120.0) is None
    assert health.why_not_alive(1121.0) == "no turn or poll ended for 121 s; the limit is 120 s"
    health.beat(1121.0)
    assert health.why_not_alive(1200.0) is None


def test_a_broker_that_is_away_does_not_make_a_worker_dead():
    health = a_health(joined=True, broker_reachable=False)
    assert health.why_not_alive(1001.0) is None
    assert health.why_not_ready(1001.0) == "no broker answers"


def test_a_worker_is_ready_once_it_has_joined_its_group():
    health = a_health()
    assert "not joined" in (health.why_not_ready(1001.0) or "")
    health.joined = True
    assert health.why_not_ready(1001.0) is None


def test_a_worker_that_was_told_to_stop_is_not_ready_and_still_alive():
    health = a_health(joined=True, draining=True)
    assert "draining" in (health.why_not_ready(1001.0) or "")
    assert health.why_not_alive(1001.0) is None


def test_a_stuck_worker_is_not_ready_either():
    assert "no turn or poll" in (a_health(joined=True).why_not_ready(2000.0) or "")
