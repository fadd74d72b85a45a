"""Alive is: the loop comes round. Ready is: joined, a broker answers, and not told to stop."""

from __future__ import annotations

import json

import pytest

from worker.health import REBALANCE_S, Health
from worker.kafka_client import BrokerWatch
from worker.statistics import read_statistics


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


def statistics(state: str = "up", join_state: str = "steady", broker: str = "UP"):
    """What librdkafka says, as far as membership goes."""
    return read_statistics(
        json.dumps(
            {
                "brokers": {"b:9092/1": {"state": broker}},
                "cgrp": {"state": state, "join_state": join_state, "assignment_size": 0},
            }
        )
    )


class Ear:
    """A watch of a classic group that is told things at times of the test's choosing."""

    def __init__(self, *, classic_group: bool = True) -> None:
        self.health = a_health(joined=True)
        self._now = 1000.0
        self._watch = BrokerWatch(self.health, lambda: self._now, classic_group=classic_group)

    def hears(self, at: float, *said: str, **more: str) -> None:
        self._now = at
        self.health.beat(at)
        self._watch.on_statistics(statistics(*said, **more))


def test_a_worker_that_stays_out_of_its_group_while_a_broker_answers_is_to_be_restarted():
    ear = Ear()
    for at in range(1000, 1125, 5):
        ear.hears(float(at), "up", "wait-join")
    assert ear.health.why_not_alive(1120.0) is None
    assert ear.health.why_not_alive(1121.0) == (
        "it has been out of its consumer group for 121 s while a broker answers; the limit is 120 s"
    )


@pytest.mark.parametrize(
    ("state", "join_state"),
    [("up", "wait-join"), ("up", "init"), ("wait-coord", "steady"), ("query-coord", "init")],
)
def test_out_of_the_group_it_is_not_ready_once_a_rebalance_would_have_ended(state, join_state):
    ear = Ear()
    ear.hears(1000.0, state, join_state)
    assert ear.health.why_not_ready(1000.0 + REBALANCE_S) is None
    later = 1001.0 + REBALANCE_S
    assert ear.health.why_not_ready(later) == "it has lost its place in the group"
    assert ear.health.why_not_alive(later) is None
    ear.hears(later, "up", "steady")
    assert ear.health.why_not_ready(later) is None


def test_rebalances_one_after_another_are_no_long_absence():
    ear = Ear()
    for at in range(1000, 2000, 10):
        ear.hears(float(at), "up", "wait-join")
        ear.hears(at + 5.0, "up", "steady")
        assert ear.health.why_not_ready(at + 9.0) is None
    assert ear.health.why_not_alive(2000.0) is None


def test_out_of_the_group_because_no_broker_answers_is_waited_out():
    ear = Ear()
    ear.hears(1000.0, "up", "wait-join")
    for at in range(1005, 3000, 5):
        ear.hears(float(at), "query-coord", "init", broker="CONNECT")
    assert ear.health.why_not_alive(2999.0) is None
    assert ear.health.why_not_ready(2999.0) == "no broker answers"
    ear.hears(3000.0, "wait-coord", "init")  # It has as long again from here on.
    assert ear.health.why_not_alive(3120.0 - 1) is None


def test_a_broker_that_has_just_gone_explains_an_absence():
    ear = Ear()
    ear.hears(1000.0, "up", "wait-join")
    ear.health.broker_reachable = False
    ear.health.beat(1130.0)
    assert ear.health.why_not_alive(1130.0) is None


def test_with_the_newer_protocol_a_member_without_partitions_has_its_place():
    """librdkafka shows such a member as one that has not begun to join."""
    spare = Ear(classic_group=False)
    spare.health.joined = False
    spare.hears(1000.0, "up", "init")
    assert spare.health.why_not_ready(1000.0) is None
    assert spare.health.out_since is None
