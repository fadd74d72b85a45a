"""The three promises of `worker.service`, on hundreds of histories full of faults.

1. Every record of a completed turn yields exactly one output: a score record or a dead letter.
2. A committed offset never passes a record whose output the broker has not acknowledged; a crash
   repeats work, recognisable by its source position, and never loses it. Nobody commits for a
   partition that it does not own.
3. One turn uses one model, each score says which, and the same event and model give the same
   score.

A failing history is repeated by its seed, which stands in the name of the test.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from confluent_kafka import KafkaError, TopicPartition

from tests.memory_clients import MemorySink, MemorySource
from tests.memory_log import DeliveryFailed, Stored
from tests.worker.simulation import Simulation
from worker.delivery import AtLeastOnce, ExactlyOnce
from worker.model import Model
from worker.service import Settled, Source, Worker
from worker.turn import Outgoing, Outputs, Records, Tally, Turn

SEEDS = 200


@pytest.mark.parametrize("seed", range(SEEDS))
def test_the_promises_hold_in_every_history(seed, tmp_path):
    simulation = Simulation(seed, tmp_path)
    simulation.run()
    assert not simulation.violations, f"seed {seed}"


@pytest.mark.parametrize("seed", range(SEEDS))
def test_exactly_once_repeats_nothing_in_any_history(seed, tmp_path):
    simulation = Simulation(seed, tmp_path, exactly_once=True)
    simulation.run()
    assert not simulation.violations, f"seed {seed}"


@pytest.mark.parametrize("seed", range(SEEDS))
def test_where_nothing_dies_nothing_is_repeated(seed, tmp_path):
    """Rebalances, orderly stops, commits that fail and answers that come late repeat nothing."""
    simulation = Simulation(seed, tmp_path, gentle=True)
    simulation.run()
    assert not simulation.violations, f"seed {seed}"


def test_the_histories_hold_every_kind_of_fault(tmp_path):
    happened: Counter[str] = Counter()
    for seed in range(40):
        simulation = Simulation(seed, tmp_path)
        simulation.run()
        happened += simulation.happened
    wanted = {
        "breaker", "crash", "DeliveryFailed", "OutsideError", "expelled", "model accepted",
        "model refused", "orderly end", "rebalance", "refused", "repeat", "stop",
    }  # fmt: skip
    assert not wanted - happened.keys()


def test_one_seed_is_one_history(tmp_path):
    first, second = Simulation(7, tmp_path), Simulation(7, tmp_path)
    first.run()
    second.run()
    assert first.happened == second.happened
    assert first.log.topics["scores"].records() == second.log.topics["scores"].records()


class CommitsBeforeItSettles(AtLeastOnce):
    def settle(self, turn: Turn, wait_s: float) -> Settled:
        self._source.commit(turn)
        return super().settle(turn, wait_s)


class ForgetsRejects(AtLeastOnce):
    def __init__(self, source: Source, sink: MemorySink) -> None:
        super().__init__(source, sink)
        self.write = lambda outputs: sink.write(replace(outputs, dead_letters=Outgoing()))


class WritesTwice(AtLeastOnce):
    def __init__(self, source: Source, sink: MemorySink) -> None:
        super().__init__(source, sink)
        self.write = lambda outputs: sink.write(replace(outputs, scores=twice(outputs.scores)))


def twice(scores: Outgoing) -> Outgoing:
    return Outgoing(scores.values * 2, scores.keys * 2, scores.headers * 2)


class GoesOnAfterAFailedDelivery(AtLeastOnce):
    def settle(self, turn: Turn, wait_s: float) -> Settled:
        try:
            return super().settle(turn, wait_s)
        except DeliveryFailed:
            self._source.commit(turn)
            return Settled.DONE


class UsesTwoModelsInATurn(Worker):
    def turn(self) -> None:
        ordinary = self._process

        def with_two(records: Records, model: Model) -> Outputs:
            first = ordinary(records, model)
            self._models.refresh(self._clocks.monotonic() + 1000)
            return replace(first, dead_letters=ordinary(records, self._models.current).dead_letters)

        self._process = with_two
        super().turn()
        self._process = ordinary


class CommitsItsPosition(MemorySource):
    """Commits where the consumer stands: by then the next turn has been read."""

    def commit(self, turn: Turn) -> None:
        positions = self._ours.positions
        self.group.commit(self.member, {p: positions.get(p, o) for p, o in turn.offsets.items()})


class IgnoresAssignmentNumbers(MemorySource):
    def still_owned(self, turn: Turn) -> Turn:
        return turn

    def commit(self, turn: Turn) -> None:
        self.group.commit(self.member, turn.offsets)


class KeepsWhatMovedWithinARead(MemorySource):
    def _ours_of(self, records: list[Stored]) -> list[Stored]:
        return [record for record in records if record.partition in self._ours.numbers]


class AcknowledgesTooSoon(MemorySink):
    def settle(self, wait_s: float) -> bool:
        super().settle(wait_s)
        return True


class KeepsItsHandAfterAnAbort(MemorySource):
    def rewind(self) -> None:
        self._ours.positions.update(self._ours.done)


class ReadsPendingOffsets(MemorySource):
    def _place(self) -> None:
        for partition in self._ours.owned - self._ours.numbers.keys():
            self._ours.begin(partition, self.group.committed.get(partition, 0))


class RewindsWhatMayBeCommitted(MemorySource):
    def place_anew(self) -> None:
        self.rewind()


class CommitsWhatItLost(ExactlyOnce):
    def settle(self, turn: Turn, wait_s: float) -> Settled:
        self._source.still_owned, ordinary = (lambda turn: turn), self._source.still_owned
        try:
            return super().settle(turn, wait_s)
        finally:
            self._source.still_owned = ordinary


class LetsFailedCommitsGo(MemorySource):
    """As the worker once did: a commit made during a rebalance fails, and nobody asks again."""

    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **options)
        self.committer.confirm = self.committer.confirm_while_polling = lambda *_: None
        ordinary = self.committer.on_commit

        def on_commit(error: KafkaError | None, places: list[TopicPartition]) -> None:
            ordinary(error, places)
            self.committer.owed.clear()

        self.committer.on_commit = on_commit


class GivesUpWithoutConfirming(MemorySource):
    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **options)
        self.committer.confirm = lambda *_: None


class LeavesWithoutConfirming(MemorySource):
    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **options)
        self.committer.confirm_while_polling = lambda *_: None


class DropsWhatItHolds(Worker):
    """Goes on to the next turn when the breaker has opened, instead of going back."""

    def _opens_the_breaker(self, turn: Turn, tally: Tally, model: Model) -> bool:
        rewind, self._source.rewind = self._source.rewind, lambda: None
        try:
            return super()._opens_the_breaker(turn, tally, model)
        finally:
            self._source.rewind = rewind


# What cannot fail proves nothing: each broken worker is caught within the seeds that run.
CAUGHT = {
    "at least once": [
        (CommitsBeforeItSettles, "are not acknowledged"),
        (ForgetsRejects, "has no output for"),
        (WritesTwice, "several outputs in one turn"),
        (GoesOnAfterAFailedDelivery, "are not acknowledged"),
        (UsesTwoModelsInATurn, "one turn used several models"),
        (CommitsItsPosition, "are not acknowledged"),
        (IgnoresAssignmentNumbers, "which it does not own"),
        (AcknowledgesTooSoon, "are not acknowledged"),
    ],
    "exactly once": [
        (KeepsWhatMovedWithinARead, ""),
        (KeepsItsHandAfterAnAbort, ""),
        (ReadsPendingOffsets, "committed outputs"),
        (RewindsWhatMayBeCommitted, "committed outputs"),
        (CommitsWhatItLost, ""),
    ],
    "gentle": [
        (LetsFailedCommitsGo, "committed outputs"),
        (GivesUpWithoutConfirming, "committed outputs"),
        (LeavesWithoutConfirming, "committed outputs"),
        (DropsWhatItHolds, "are not acknowledged"),
    ],
}


@pytest.mark.parametrize(
    ("history", "broken", "complaint"),
    [
        pytest.param(history, *case, id=f"{history}: {case[0].__name__}")
        for history, cases in CAUGHT.items()
        for case in cases
    ],
)
def test_a_worker_that_breaks_a_promise_is_caught(history, broken, complaint, tmp_path):
    options = {"exactly_once": history == "exactly once", "gentle": history == "gentle"}
    place = next(
        name
        for name, kind in (
            ("worker_class", Worker),
            ("source_class", MemorySource),
            ("sink_class", MemorySink),
            ("delivery_class", AtLeastOnce | ExactlyOnce),
        )
        if issubclass(broken, kind)
    )
    for seed in range(SEEDS):
        simulation = Simulation(seed, tmp_path, **options, **{place: broken})
        simulation.run()
        if any(complaint in violation for violation in simulation.violations):
            return
    pytest.fail(f"{broken.__name__} was not caught in {SEEDS} histories")
