"""A member that its group has forgotten joins anew, and one that goes is heard to go."""

from __future__ import annotations

from unittest.mock import Mock, call

import pytest
from confluent_kafka import KafkaError, KafkaException

from worker import membership as module
from worker.membership import FORGOTTEN_S, Membership


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def refused_for(member: Membership, clock: list[float], seconds: float) -> None:
    member.refused_as_unknown()
    clock[0] += seconds
    member.refused_as_unknown()


def test_one_whose_commits_are_refused_as_unknown_for_a_while_is_forgotten(clock):
    member = Membership(None, "")
    assert not member.is_forgotten()
    refused_for(member, clock, FORGOTTEN_S - 0.1)
    assert not member.is_forgotten()
    refused_for(member, clock, 0.2)
    assert member.is_forgotten()
    member.joins()
    assert not member.is_forgotten()


def test_one_refusal_and_then_silence_is_no_reason(clock):
    member = Membership(None, "")
    member.refused_as_unknown()
    clock[0] += 10 * FORGOTTEN_S
    assert not member.is_forgotten()


@pytest.mark.parametrize("end", ["accepted", "is_let_in", "joins"])
def test_what_shows_that_the_client_noticed_ends_the_doubt(clock, end):
    member = Membership(None, "")
    refused_for(member, clock, FORGOTTEN_S - 0.1)
    getattr(member, end)()
    refused_for(member, clock, 0.2)
    assert not member.is_forgotten()


def test_while_it_joins_refusals_are_those_of_the_member_that_it_was(clock):
    member = Membership(None, "")
    member.joins()
    refused_for(member, clock, 2 * FORGOTTEN_S)
    assert not member.is_forgotten()


def test_one_that_is_being_let_in_waits_for_that_before_it_leaves():
    member, consumer = Membership(None, ""), Mock()
    member.joins()
    consumer.poll.side_effect = lambda _: consumer.poll.call_count == 3 and member.is_let_in()
    member.leave(consumer, [], 5.0)
    assert [each[0] for each in consumer.mock_calls] == ["poll"] * 3 + ["unsubscribe", "close"]


def test_one_that_is_not_let_in_leaves_all_the_same():
    member, consumer = Membership(None, ""), Mock()
    member.joins()
    member.leave(consumer, [], 0.0)
    assert consumer.mock_calls == [call.unsubscribe(), call.close()]


def test_in_the_newer_protocol_nobody_is_waited_for():
    """There one without partitions may never hear that it is let in, and is heard to leave."""
    member, consumer = Membership(None, "", classic=False), Mock()
    member.joins()
    member.leave(consumer, [], 5.0)
    assert consumer.mock_calls == [call.unsubscribe(), call.close()]


def test_one_whose_client_failed_for_good_is_closed_all_the_same():
    member, consumer = Membership(None, ""), Mock()
    consumer.unsubscribe.side_effect = KafkaException(KafkaError(KafkaError._FATAL))
    member.leave(consumer, [], 5.0)
    assert consumer.mock_calls == [call.unsubscribe(), call.close()]


@pytest.mark.parametrize("owned", [[], [1, 0]])
def test_a_static_member_does_not_leave(owned, caplog):
    caplog.set_level("INFO")
    member, consumer = Membership("worker-1", "45 s"), Mock()
    member.say_it_stays(owned)
    member.leave(consumer, owned, 5.0)
    assert consumer.mock_calls == [call.close()]
    assert ("keeps partitions [0, 1] for 45 s" in caplog.text) == bool(owned)
