"""What exactly-once does with a transaction that cannot be committed."""

from __future__ import annotations

from unittest.mock import Mock

import pytest

from worker.delivery import ExactlyOnce, MustAbort
from worker.service import Settled


@pytest.fixture
def turn():
    return Mock()


def settled(turn, sink: Mock) -> tuple[list[str], Settled]:
    """Settle a turn; return what the source was told, and what became of the turn."""
    source = Mock()
    source.still_owned.return_value = turn
    outcome = ExactlyOnce(source, sink).settle(turn, 0.1)
    told = [each[0] for each in source.mock_calls]
    return [name for name in told if name not in ("still_owned", "transaction_offsets")], outcome


def a_sink(why: MustAbort, *, committing: bool) -> Mock:
    sink = Mock(committing=committing)
    sink.commit.side_effect = why
    return sink


def test_what_was_never_to_be_committed_is_rewound(turn):
    sink = a_sink(MustAbort(), committing=False)
    assert settled(turn, sink) == (["rewind"], Settled.UNDONE)


def test_what_may_be_committed_begins_where_the_group_says(turn):
    sink = a_sink(MustAbort(), committing=True)
    assert settled(turn, sink) == (["place_anew"], Settled.UNDONE)


def test_that_the_group_does_not_know_us_is_passed_on(turn):
    sink = a_sink(MustAbort(is_unknown=True), committing=False)
    assert settled(turn, sink) == (["refused_as_unknown", "rewind"], Settled.UNDONE)
