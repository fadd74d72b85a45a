"""Transactions on Apache Kafka: what is committed counts once, and the rest never did."""

from __future__ import annotations

import time
from contextlib import ExitStack

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer

from schemas.errors import OutsideError
from schemas.score import decode_score
from tests.broker.rigs import KafkaRig, read_turns, unique
from tests.broker.test_source_and_sink import outputs_of
from tests.builders import Recipe, a_model, an_event
from tests.components import WAIT_S, within
from worker.delivery import ExactlyOnce
from worker.hold import Hold
from worker.service import Settled


@pytest.fixture
def rig(kafka):
    with ExitStack() as stack:
        yield KafkaRig(kafka, stack)


class Line:
    """An input topic with events in it, output topics, and a source that reads."""

    def __init__(self, rig: KafkaRig, events: list[bytes], **topics: int | None) -> None:
        self.rig = rig
        self.input, self.group = rig.topic(), unique("group")
        self.scores, self.letters = rig.topic(**topics), rig.topic()
        for event in events:
            rig.produce(self.input, event)
        self.model = a_model(Recipe(features=60)) if topics else a_model()
        self.source = rig.source(self.input, self.group, in_transactions=True)
        self.source.start(lambda _: None)

    def deliver(self, sink) -> list[Settled]:
        """Take turns until the input is done; say how each was settled."""
        delivery = ExactlyOnce(self.source, sink)
        outcomes: list[Settled] = []

        def all_is_done() -> bool:
            if (turn := self.source.read(0.1)) is None:
                return Settled.DONE in outcomes
            delivery.write(outputs_of(self.model, turn.records, 60))
            while (settled := delivery.settle(turn, 0.1)) is Settled.WAITING:
                self.source.keep_alive(0)
            outcomes.append(settled)
            return False

        assert within(all_is_done), outcomes
        return outcomes


def test_outputs_and_offsets_are_committed_together(rig: KafkaRig):
    line = Line(rig, [an_event(1, 2, 3), b"rubbish", an_event(4, 5, 6)])
    line.deliver(rig.transactions(line.scores, line.letters))
    assert len(rig.read_all(line.scores, 2)) == 2
    assert len(rig.read_all(line.letters, 1)) == 1
    assert rig.committed(line.input, line.group) == {0: 3}


def test_an_aborted_turn_is_read_again_and_never_counted(rig: KafkaRig):
    line = Line(rig, [an_event(1, 2, 3)] * 5)
    sink = rig.transactions(line.scores, line.letters)
    (turn,) = read_turns(line.source, 5)
    sink.write(outputs_of(line.model, turn.records))
    assert within(lambda: sink.abort(0.1))
    line.source.rewind()
    assert not rig.committed(line.input, line.group)
    line.deliver(sink)
    rig.read_all(line.scores, 5)
    assert rig.committed(line.input, line.group) == {0: 5}


def test_what_outlasts_its_time_out_is_done_again_by_a_new_producer(rig: KafkaRig):
    line = Line(rig, [an_event(1, 2, 3)] * 5)
    sink = rig.transactions(line.scores, line.letters, **{"transaction.timeout.ms": 1000})
    (turn,) = read_turns(line.source, 5)
    sink.write(outputs_of(line.model, turn.records))
    deadline = time.monotonic() + 4  # Past the time-out and the broker's sweep.
    while time.monotonic() < deadline:
        line.source.keep_alive(0.1)
    delivery = ExactlyOnce(line.source, sink)
    outcomes = []

    def settled() -> bool:
        outcomes.append(delivery.settle(turn, 0.1))
        return outcomes[-1] is not Settled.WAITING

    assert within(settled)
    assert outcomes[-1] is Settled.UNDONE
    line.deliver(sink)
    rig.read_all(line.scores, 5)


class Unheard:
    """A producer whose commits are never answered; the broker may have got them or not."""

    def __init__(self, producer: Producer, *, arrives: bool) -> None:
        self._producer = producer
        self._arrives = arrives

    def __getattr__(self, name: str) -> object:
        return getattr(self._producer, name)

    def commit_transaction(self, _: float) -> None:
        if self._arrives:
            self._producer.commit_transaction(WAIT_S)
            self._arrives = False
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "unheard", retriable=True))


@pytest.mark.parametrize("arrives", [True, False])
def test_a_client_that_hangs_while_it_commits_is_replaced_and_the_group_knows_what_came_of_it(
    rig: KafkaRig, arrives: bool, caplog
):
    line = Line(rig, [an_event(1, 2, 3)] * 5)
    sink = rig.transactions(line.scores, line.letters, **{"transaction.timeout.ms": 1000})
    sink._client.producer = Unheard(sink._client.producer, arrives=arrives)
    (turn,) = read_turns(line.source, 5)
    sink.write(outputs_of(line.model, turn.records))
    delivery = ExactlyOnce(line.source, sink)
    outcomes = []
    assert within(lambda: outcomes.append(delivery.settle(turn, 0.1)) or Settled.UNDONE in outcomes)
    assert "The producer is of no use any more" in caplog.text
    rig.produce(line.input, an_event(4, 5, 6))
    line.deliver(sink)
    scores = [decode_score(record.value or b"") for record in rig.read_all(line.scores, 6)]
    assert sorted(score.source.offset for score in scores) == [0, 1, 2, 3, 4, 5]


def test_a_client_that_has_forgotten_all_brokers_is_replaced_at_once(rig: KafkaRig, caplog):
    """As librdkafka does where a broker that was frozen answers that there is none."""
    line = Line(rig, [an_event(1, 2, 3)] * 5)
    sink = rig.transactions(line.scores, line.letters)
    (turn,) = read_turns(line.source, 5)
    sink.write(outputs_of(line.model, turn.records))
    internal = '"brokers": {":0/internal": {"source": "internal", "state": "INIT"}}'
    sink._client._on_statistics(f"{{{internal}}}")
    delivery = ExactlyOnce(line.source, sink)
    started, outcomes = time.monotonic(), []
    assert within(lambda: outcomes.append(delivery.settle(turn, 0.1)) or Settled.UNDONE in outcomes)
    assert time.monotonic() - started < 2.0
    assert "the client has forgotten all brokers. Taking a new one" in caplog.text
    line.deliver(sink)
    rig.read_all(line.scores, 5)


def test_a_successor_of_the_same_id_ends_what_was_left_open_and_fences_the_one_before(
    rig: KafkaRig,
):
    line = Line(rig, [an_event(1, 2, 3)] * 5)
    name = unique("id")
    first = rig.transactions(line.scores, line.letters, new_id=lambda: name)
    (turn,) = read_turns(line.source, 5)
    first.write(outputs_of(line.model, turn.records))
    offsets = line.source.transaction_offsets(turn)
    second = rig.transactions(line.scores, line.letters, new_id=lambda: name)
    delivery = ExactlyOnce(line.source, first)
    with pytest.raises(OutsideError, match="another worker took over transactional id"):
        within(lambda: delivery.settle(turn, 0.1) is Settled.DONE)
    second.write(outputs_of(line.model, turn.records))
    assert within(lambda: second.commit(offsets, 0.1))
    rig.read_all(line.scores, 5)


def test_a_turn_whose_partition_was_lost_is_aborted(rig: KafkaRig):
    line = Line(rig, [an_event(1, 2, 3)] * 5)
    sink = rig.transactions(line.scores, line.letters)
    (turn,) = read_turns(line.source, 5)
    sink.write(outputs_of(line.model, turn.records))
    line.source.rewind()  # As a new assignment: other numbers.
    delivery = ExactlyOnce(line.source, sink)
    outcomes = []
    assert within(lambda: outcomes.append(delivery.settle(turn, 0.1)) or Settled.UNDONE in outcomes)
    assert Settled.DONE not in outcomes
    line.deliver(sink)
    rig.read_all(line.scores, 5)


@pytest.mark.parametrize("told", [True, False])
def test_an_output_too_large_is_written_in_its_smaller_form(rig: KafkaRig, told: bool):
    """Where the broker tells the limit, nothing is aborted; else its refusals show the limit."""
    small, large = an_event(*[0.01] * 60), an_event(*[50] * 60)
    line = Line(rig, [small, large, small, large], partitions=1, bytes_max=1500)
    ask = None if told else dict
    outcomes = line.deliver(rig.transactions(line.scores, line.letters, ask_limits=ask))
    assert outcomes[-1] is Settled.DONE
    assert (Settled.UNDONE in outcomes) is not told
    stored = [decode_score(record.value or b"") for record in rig.read_all(line.scores, 4)]
    assert {s.source.offset: s.truncated for s in stored} == {0: False, 1: True, 2: False, 3: True}


def test_a_topic_that_is_not_there_holds_until_it_is(rig: KafkaRig, kafka):
    line = Line(rig, [an_event(1, 2, 3), b"rubbish"])
    letters = unique("absent")
    sink = rig.transactions(line.scores, letters)
    delivery = ExactlyOnce(line.source, sink)

    def holds() -> bool:
        if (turn := line.source.read(0.1)) is not None:
            delivery.write(outputs_of(line.model, turn.records))
            while delivery.settle(turn, 0.1) is Settled.WAITING and Hold.OUTPUT not in rig.holds:
                pass
        return Hold.OUTPUT in rig.holds

    assert within(holds)
    assert f"topic {letters} is refused" in (rig.health.held or "")
    kafka.create_topics({letters: 1})
    line.source.rewind()
    assert within(lambda: sink.abort(0.1))
    line.deliver(sink)
    assert rig.health.held is None
    rig.read_all(line.scores, 1)
    rig.read_all(letters, 1)
