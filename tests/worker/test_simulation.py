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

import pytest

from tests.memory_log import MemorySink, MemorySource, Stored
from tests.worker.simulation import Simulation
from worker.model import Model
from worker.service import DeliveryFailed, Worker
from worker.turn import Outgoing, Outputs, Turn

SEEDS = 300


@pytest.mark.parametrize("seed", range(SEEDS))
def test_the_promises_hold_in_every_history(seed, tmp_path):
    simulation = Simulation(seed, tmp_path)
    simulation.run()
    assert not simulation.violations, f"seed {seed}"


def test_the_histories_hold_every_kind_of_fault(tmp_path):
    happened: Counter[str] = Counter()
    for seed in range(40):
        simulation = Simulation(seed, tmp_path)
        simulation.run()
        happened += simulation.happened
    wanted = {
        "crash", "DeliveryFailed", "OutsideError", "expelled", "model accepted", "model refused",
        "orderly end", "rebalance", "repeat", "stop",
    }  # fmt: skip
    assert not wanted - happened.keys()


def test_one_seed_is_one_history(tmp_path):
    first, second = Simulation(7, tmp_path), Simulation(7, tmp_path)
    first.run()
    second.run()
    assert first.happened == second.happened
    assert first.log.topics["scores"].records() == second.log.topics["scores"].records()


class CommitsBeforeItSettles(Worker):
    def turn(self) -> None:
        super().turn()
        if self._in_flight is not None:
            self._source.commit(self._in_flight.turn)


class ForgetsRejects(Worker):
    def _process(self, turn: Turn, model: Model) -> Outputs:
        outputs = super()._process(turn, model)
        return Outputs(outputs.scores, Outgoing(), outputs.tally)


class WritesTwice(Worker):
    def _process(self, turn: Turn, model: Model) -> Outputs:
        outputs = super()._process(turn, model)
        scores = outputs.scores
        return Outputs(
            Outgoing(scores.values * 2, scores.keys * 2, scores.headers * 2),
            outputs.dead_letters,
            outputs.tally,
        )


class GoesOnAfterAFailedDelivery(Worker):
    def _settle(self, deadline: float | None = None) -> bool:
        try:
            return super()._settle(deadline)
        except DeliveryFailed:
            if self._in_flight is not None:
                self._source.commit(self._in_flight.turn)
                self._in_flight = None
            return True


class UsesTwoModelsInATurn(Worker):
    def _process(self, turn: Turn, model: Model) -> Outputs:
        first = super()._process(turn, model)
        self._models.refresh(self._clocks.monotonic() + 1000)
        second = super()._process(turn, self._models.current)
        return Outputs(first.scores, second.dead_letters, first.tally)


class CommitsItsPosition(MemorySource):
    """Commits where the consumer stands: by then the next turn has been read."""

    def commit(self, turn: Turn) -> None:
        self._group.commit(
            self.member, {p: self._positions.get(p, o) for p, o in turn.offsets.items()}
        )


class IgnoresAssignmentNumbers(MemorySource):
    def still_owned(self, turn: Turn) -> Turn:
        return turn

    def commit(self, turn: Turn) -> None:
        self._group.commit(self.member, turn.offsets)


class KeepsWhatMovedWithinARead(MemorySource):
    def _without_given_up(self, records: list[Stored]) -> list[Stored]:
        return [record for record in records if record.partition in self._numbers]


class AcknowledgesTooSoon(MemorySink):
    def settle(self, wait_s: float) -> bool:
        super().settle(wait_s)
        return True


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        (CommitsBeforeItSettles, "are not acknowledged"),
        (ForgetsRejects, "has no output for"),
        (WritesTwice, "several outputs in one turn"),
        (GoesOnAfterAFailedDelivery, "are not acknowledged"),
        (UsesTwoModelsInATurn, "one turn used several models"),
        (CommitsItsPosition, "are not acknowledged"),
        (IgnoresAssignmentNumbers, "which it does not own"),
        (KeepsWhatMovedWithinARead, "several outputs in one turn"),
        (AcknowledgesTooSoon, "are not acknowledged"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_a_worker_that_breaks_a_promise_is_caught(broken, complaint, tmp_path):
    """What cannot fail proves nothing: each broken worker is caught within the seeds that run."""
    place = next(
        name
        for name, kind in (
            ("worker_class", Worker),
            ("source_class", MemorySource),
            ("sink_class", MemorySink),
        )
        if issubclass(broken, kind)
    )
    for seed in range(SEEDS):
        simulation = Simulation(seed, tmp_path, **{place: broken})
        simulation.run()
        if any(complaint in violation for violation in simulation.violations):
            return
    pytest.fail(f"{broken.__name__} was not caught in {SEEDS} histories")
