"""The life of the worker: turns, one after another, until it is told to stop.

Three promises, which `tests/worker/test_simulation.py` holds it to:

1. Every record of a completed turn yields exactly one output: a score record or a dead letter.
   None is without one, whatever bytes come in.
2. A committed offset never passes a record whose output the broker has not acknowledged. A
   crash repeats work, every repeat recognisable by its source position; it never loses it. With
   exactly-once delivery it does not repeat it either, for `read_committed` readers.
3. One turn uses one model, and each score says which. The same event and model give the same
   score to within the contract's tolerance, whatever the batch.

This module knows neither Kafka nor onnxruntime nor a clock: it meets them through the objects
that `__main__` hands in.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

from schemas.errors import OutsideError
from worker.breaker import Breaker
from worker.declared_turns import Stage
from worker.health import Health
from worker.hold import Hold, Holds
from worker.metrics import Metrics
from worker.model import Model
from worker.model_slot import ModelSlot
from worker.turn import Outputs, Records, Tally, Turn

log = logging.getLogger(__name__)

# No wait is longer, so that signals and the broker's callbacks are served; but for idle reads and
# ODRADEK_BATCH_WAIT_MS.
SLICE_S = 0.1
# Waiting for acknowledgements this long, we start to poll the consumer as well, partitions
# paused. Earlier it would only throw away what librdkafka has prefetched.
POLL_WHILE_SETTLING_AFTER_S = 1.0


class Source(Protocol):
    """Where records come from, in turns."""

    def start(self, settle: Callable[[float], None]) -> None:
        """Begin to read. When partitions are to be given up, `settle(limit_s)` is called, from
        within `read` or `keep_alive`, before they go."""

    def read(self, wait_s: float) -> Turn | None:
        """Return what is waiting, at most a batch; wait at most `wait_s` for the first of it.

        A source may wait a little longer for company, but not with `wait_s` 0: a turn is in flight.

        Raises:
            OutsideError: reading cannot go on.
        """

    def keep_alive(self, wait_s: float) -> None:
        """Stay a member without reading: nothing is returned and nothing is lost."""

    def still_owned(self, turn: Turn) -> Turn:
        """Return what is left of a turn after the rebalances and rewinds since it was read."""

    def rewind(self) -> None:
        """Go back to behind the last turn that is done: what was read since is read again."""

    def close(self, limit_s: float) -> None:
        """Leave. Commits made before are confirmed when this returns, or `limit_s` has passed."""


class Settled(Enum):
    """What has become of a turn whose outputs are written."""

    WAITING = auto()  # Not known yet.
    DONE = auto()  # Its outputs are acknowledged, and its offsets committed or about to be.
    UNDONE = auto()  # Nothing of it counts, and the source is rewound: it will be read again.


class Delivery(Protocol):
    """How a turn's outputs and its offsets reach the broker: see `worker.delivery`."""

    def write(self, outputs: Outputs) -> None:
        """Hand over a turn's outputs, all of them; do not wait for acknowledgements."""

    def settle(self, turn: Turn, wait_s: float) -> Settled:
        """Say what has become of the turn written last; wait at most about `wait_s` for it.

        Raises:
            OutsideError: waiting will not help. Nothing unacknowledged is committed.
        """

    def idle(self) -> None:
        """Serve what must be served while nothing is in flight."""

    def close(self) -> None:
        """Let go of what is not yet delivered."""


Process = Callable[[Records, Model], Outputs]
"""Decode, score and judge records: one output for each. `worker.scoring` has the ordinary one."""


@dataclass
class _InFlight:
    """A turn whose outputs are written and not yet settled."""

    turn: Turn
    tally: Tally
    read_at: float  # Epoch seconds.
    read_at_monotonic: float


@dataclass(frozen=True)
class Clocks:
    """A worker's clocks: `monotonic` seconds for waits, `epoch` seconds for latencies."""

    monotonic: Callable[[], float]
    epoch: Callable[[], float]


class Worker:
    """Reads, decodes, scores and writes; settles and commits one turn behind."""

    def __init__(
        self,
        source: Source,
        delivery: Delivery,
        models: ModelSlot,
        process: Process,
        metrics: Metrics,
        health: Health,
        holds: Holds,
        clocks: Clocks,
        *,
        breaker: Breaker | None,
        idle_wait_s: float,
        stop_timeout_s: float,
    ) -> None:
        self._source = source
        self._delivery = delivery
        self._models = models
        self._process = process
        self._metrics = metrics
        self._health = health
        self._holds = holds
        self._clocks = clocks
        self._breaker = breaker
        self._idle_wait_s = idle_wait_s
        self._stop_timeout_s = stop_timeout_s
        self._stop_deadline: float | None = None
        self._in_flight: _InFlight | None = None
        self._model_at_hold: str | None = None

    def run(self) -> None:
        """Take turns until `stop`; then settle, commit and leave.

        Raises:
            OutsideError: reading or writing cannot go on, or the last turn was not acknowledged
                in time. Nothing unacknowledged has been committed.
        """
        try:
            self._source.start(self._settle_before_revoke)
            while self._stop_deadline is None:
                self.turn()
            self._drain()
        finally:
            self._delivery.close()
            self._source.close(self._close_limit_s())

    def stop(self) -> None:
        """Ask `run` to end after the turn in hand. Safe to call from a signal handler."""
        if self._stop_deadline is None:
            self._stop_deadline = self._clocks.monotonic() + self._stop_timeout_s
            self._health.draining = True

    def turn(self) -> None:
        """Take one batch all the way; the batch before it is settled on the way."""
        self._models.refresh(self._clocks.monotonic())
        model = self._models.current  # One turn, one model.
        self._health.beat(self._clocks.monotonic())
        if Hold.REJECTS in self._holds and not self._closes_the_breaker(model):
            self._source.keep_alive(self._idle_wait_s)
            self._delivery.idle()
            return
        with self._metrics.stage(Stage.READ):
            # With outputs in flight we do not wait for more: a quiet topic is settled at once.
            turn = self._source.read(0 if self._in_flight else self._idle_wait_s)
        if turn is None:
            self._settle()
            return
        read_at, read_at_monotonic = self._clocks.epoch(), self._clocks.monotonic()
        outputs = self._process(turn.records, model)
        if not self._settle():
            return  # This turn is read again, or we stop: it was never written.
        if (owned := self._source.still_owned(turn)) is not turn:
            # While we waited, partitions went to another worker, with the records in our hand.
            turn, outputs = owned, self._process(owned.records, model)
        if self._opens_the_breaker(turn, outputs.tally, model):
            return
        with self._metrics.stage(Stage.WRITE):
            self._delivery.write(outputs)
        self._in_flight = _InFlight(turn, outputs.tally, read_at, read_at_monotonic)

    def _settle(self, deadline: float | None = None) -> bool:
        """Wait until the turn in flight is settled; return whether one may go on from it.

        Waiting longer than a moment, it polls the consumer; that may revoke partitions, which
        settles this very turn from within: hence the look at `_in_flight` in every round.
        Returns False if `deadline`, or the stop's, in monotonic seconds, passed first, or if
        the turn is undone.
        """
        if self._in_flight is None:
            self._delivery.idle()  # A quiet topic must not make us deaf.
            return True
        started = self._clocks.monotonic()
        with self._metrics.stage(Stage.SETTLE):
            while (waiting := self._in_flight) is not None:
                settled = self._delivery.settle(waiting.turn, SLICE_S)
                if settled is not Settled.WAITING:
                    self._in_flight = None
                    self._count(waiting, settled)
                    return settled is Settled.DONE
                now = self._clocks.monotonic()
                self._health.beat(now)
                if any(end is not None and now >= end for end in (deadline, self._stop_deadline)):
                    return False
                if deadline is None and now - started > POLL_WHILE_SETTLING_AFTER_S:
                    self._source.keep_alive(0)
        return True

    def _count(self, waiting: _InFlight, settled: Settled) -> None:
        if settled is Settled.UNDONE:
            self._metrics.undone()
            return
        self._metrics.acknowledged(
            waiting.tally,
            read_at=waiting.read_at,
            # Not the epoch's clock: it may be set back in between.
            now=waiting.read_at + (self._clocks.monotonic() - waiting.read_at_monotonic),
            released=waiting.turn.released,
        )
        if self._breaker is not None:
            self._breaker.count(waiting.tally)

    def _settle_before_revoke(self, limit_s: float) -> None:
        # What is held would only make the others wait.
        limit_s = 0.0 if self._holds else limit_s
        if not self._settle(self._clocks.monotonic() + limit_s) and self._in_flight is not None:
            log.warning(
                "Partitions are revoked with outputs unacknowledged after %.0f s. Their offsets "
                "are not committed; the next owner reads those records again.",
                limit_s,
            )

    def _opens_the_breaker(self, turn: Turn, tally: Tally, model: Model) -> bool:
        """Judge a turn before it is written; with nothing in flight."""
        if self._breaker is None or (why := self._breaker.opens_at(tally)) is None:
            return False
        self._breaker.forget()
        self._source.rewind()
        self._model_at_hold = model.digest
        records = turn.records
        self._holds.begin(
            Hold.REJECTS,
            f"{why}, first seen at {records.topic} partition {records.partitions[0]} offset "
            f"{records.offsets[0]}. Its turn is neither written nor committed. Look at what its "
            f"producers have deployed, and whether model {model.reference.name} "
            f"{model.reference.version} belongs to this topic. A new model file is tried at once; "
            "to turn the rest into dead letters, start with ODRADEK_BREAKER=off",
        )
        return True

    def _closes_the_breaker(self, model: Model) -> bool:
        if model.digest == self._model_at_hold:
            return False
        self._holds.end(Hold.REJECTS, "a new model is there; the turn in hand is judged by it.")
        return True

    def _close_limit_s(self) -> float:
        """Return what is left of the stop's time; without a stop, as much as one has."""
        if self._stop_deadline is None:
            return self._stop_timeout_s
        return max(SLICE_S, self._stop_deadline - self._clocks.monotonic())

    def _drain(self) -> None:
        """Settle and commit the last turn.

        Raises:
            OutsideError: it was not acknowledged within the stop limit.
        """
        if not self._settle() and self._in_flight is not None:
            raise OutsideError(
                f"the broker did not acknowledge the last turn within {self._stop_timeout_s:g} s; "
                "its offsets are not committed, and its records will be read again"
            )
