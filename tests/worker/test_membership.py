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


def test_one_whose_commits_are_refused_as_unknown_for_a_while_is_forgotten(clock):
    member = Membership(None, "")
    assert not member.is_forgotten()
    member.refused_as_unknown()
    clock[0] += FORGOTTEN_S - 0.1
    member.refused_as_unknown()
    assert not member.is_forgotten()
    clock[0] += 0.2
    assert member.is_forgotten()
    member.begin_anew()
    assert not member.is_forgotten()


def test_one_commit_that_is_accepted_ends_the_doubt(clock):
    member = Membership(None, "")
    member.refused_as_unknown()
    member.accepted()
    clock[0] += 2 * FORGOTTEN_S
    member.refused_as_unknown()
    assert not member.is_forgotten()


def test_one_that_is_being_let_in_waits_for_that_before_it_leaves():
    member, consumer = Membership(None, ""), Mock()
    member.begin_anew()
    consumer.poll.side_effect = lambda _: setattr(member, "joining", consumer.poll.call_count < 3)
    member.leave(consumer, [], 5.0)
    assert [each[0] for each in consumer.mock_calls] == ["poll"] * 3 + ["unsubscribe", "close"]


def test_one_that_is_not_let_in_leaves_all_the_same():
    member, consumer = Membership(None, ""), Mock()
    member.begin_anew()
    member.leave(consumer, [], 0.0)
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
    member.leave(consumer, owned, 5.0)
    assert consumer.mock_calls == [call.close()]
    assert ("keeps partitions [0, 1] for 45 s" in caplog.text) == bool(owned)
