"""One commit on its way at a time; what is owed goes with the next."""

from __future__ import annotations

from unittest.mock import Mock

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from worker.committer import Committer
from worker.membership import Membership


class Client:
    """Takes commits, and answers for the oldest when told."""

    def __init__(self) -> None:
        self.sent: list[list[TopicPartition]] = []
        self.refuses: KafkaError | None = None

    def commit(self, *, offsets: list[TopicPartition], asynchronous: bool) -> None:
        assert asynchronous
        if self.refuses is not None:
            raise KafkaException(self.refuses)
        self.sent.append(offsets)

    def offsets(self) -> list[dict[int, int]]:
        return [{place.partition: place.offset for place in places} for places in self.sent]


@pytest.fixture
def client():
    return Client()


@pytest.fixture
def committer():
    return Committer("events", Mock(), lambda: "note", Membership(None, ""))


def test_while_one_is_on_its_way_the_others_are_owed_and_go_together(committer, client):
    for offset in range(1, 1001):
        committer.commit(client, {0: offset, 1: 2 * offset})
    assert client.offsets() == [{0: 1, 1: 2}]
    committer.on_commit(None, client.sent[0])
    committer.ask(client)
    committer.ask(client)
    assert client.offsets() == [{0: 1, 1: 2}, {0: 1000, 1: 2000}]
    committer.on_commit(None, client.sent[1])
    assert committer.owed == {}
    committer.ask(client)
    assert len(client.sent) == 2


def test_one_that_failed_is_asked_for_again(committer, client):
    committer.commit(client, {0: 7})
    committer.on_commit(KafkaError(KafkaError.ILLEGAL_GENERATION), client.sent[0])
    assert committer.owed == {0: 7}
    committer.ask(client)
    committer.on_commit(None, client.sent[1])
    assert committer.owed == {}


def test_one_that_the_client_does_not_take_is_not_on_its_way(committer, client):
    client.refuses = KafkaError(KafkaError._STATE)
    committer.commit(client, {0: 7})
    client.refuses = None
    committer.commit(client, {0: 8})
    assert client.offsets() == [{0: 8}]


def test_a_new_client_owes_nothing_and_waits_for_no_old_answer(committer, client):
    committer.commit(client, {0: 7})
    committer.begin_anew()
    assert committer.owed == {}
    committer.commit(client, {0: 3})
    assert client.offsets() == [{0: 7}, {0: 3}]


def test_the_membership_hears_of_refusals_and_of_success(client):
    membership = Mock()
    committer = Committer("events", Mock(), lambda: "note", membership)
    committer.commit(client, {0: 7})
    committer.on_commit(KafkaError(KafkaError.UNKNOWN_MEMBER_ID), client.sent[0])
    assert [each[0] for each in membership.mock_calls] == ["refused_as_unknown"]
    committer.ask(client)
    committer.on_commit(None, client.sent[1])
    assert [each[0] for each in membership.mock_calls] == ["refused_as_unknown", "accepted"]
