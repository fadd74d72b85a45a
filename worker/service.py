"""The life of the worker: turns, one after another, until it is told to stop.

Three promises, which `tests/worker/test_simulation.py` holds it to:

1. Every record of a completed turn yields exactly one output: a score record or a dead letter.
   None is without one, whatever bytes come in.
2. A committed offset never passes a record whose output the broker has not acknowledged. A
   crash repeats work, every repeat recognisable by its source position; it never loses it.
3. One turn uses one model, and each score says which. The same event and model give the same
   score to within the contract's tolerance, whatever the batch.

This module knows neither Kafka nor onnxruntime nor a clock: it meets them through the objects
that `__main__` hands in.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from schemas.errors import OutsideError
from worker.health import Health
from worker.metrics import Metrics, Stage
from worker.model import Model
from worker.model_slot import ModelSlot
from worker.results import to_results
from worker.turn import Outputs, Tally, Turn

log = logging.getLogger(__name__)

SLICE_S = 0.1  # No wait is longer, so that signals and the broker's callbacks are served.
# Waiting for acknowledgements this long, we start to poll the consumer as well, partitions
# paused. Earlier it would only throw away what librdkafka has prefetched.
POLL_WHILE_SETTLING_AFTER_S = 1.0


class DeliveryFailed(OutsideError):
    """An output cannot be delivered, and waiting will not help. Nothing after it is committed."""


class Source(Protocol):
    """Where records come from, in turns."""

    def start(self, settle: Callable[[float], None]) -> None:
        """Begin to read. When partitions are to be given up, `settle(limit_s)` is called, from
        within `read` or `keep_alive`, before they go."""

    def read(self, wait_s: float) -> Turn | None:
        """Return what is waiting, at most a batch; wait at most `wait_s`, for the first only.

        Raises:
            OutsideError: reading cannot go on.
        """

    def keep_alive(self) -> None:
        """Stay a member without reading: nothing is returned and nothing is lost."""

    def still_owned(self, turn: Turn) -> Turn:
        """Return what is left of a turn after the rebalances since it was read."""

    def commit(self, turn: Turn) -> None:
        """Commit a turn whose outputs are all acknowledged. Partitions that are no longer ours,
        by the turn's assignment numbers, are left alone."""

    def close(self, limit_s: float) -> None:
        """Leave. Commits made before are confirmed when this returns, or `limit_s` has passed."""


class Sink(Protocol):
    """Where outputs go."""

    def write(self, outputs: Outputs) -> None:
        """Hand over a turn's outputs, all of them; do not wait for acknowledgements."""

    def settle(self, wait_s: float) -> bool:
        """Return whether everything written is acknowledged; wait at most `wait_s` for it.

        Raises:
            DeliveryFailed: an output was refused for good.
        """

    def close(self) -> None:
        """Let go of what is not yet delivered."""


@dataclass
class _InFlight:
    """A turn whose outputs are written and not yet acknowledged."""

    turn: Turn
    tally: Tally


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
        sink: Sink,
        models: ModelSlot,
        metrics: Metrics,
        health: Health,
        clocks: Clocks,
        *,
        top_features_max: int,
        idle_wait_s: float,
        stop_timeout_s: float,
    ) -> None:
        self._source = source
        self._sink = sink
        self._models = models
        self._metrics = metrics
        self._health = health
        self._clocks = clocks
        self._top_features_max = top_features_max
        self._idle_wait_s = idle_wait_s
        self._stop_timeout_s = stop_timeout_s
        self._stop_deadline: float | None = None
        self._in_flight: _InFlight | None = None

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
            self._sink.close()
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
        with self._metrics.stage(Stage.READ):
            # With outputs in flight we do not wait for more: a quiet topic is settled at once.
            turn = self._source.read(0 if self._in_flight else self._idle_wait_s)
        self._health.beat(self._clocks.monotonic())
        if turn is None:
            self._settle()
            return
        outputs = self._process(turn, model)
        if not self._settle():
            return  # Stopping, and the broker is silent: this turn was never written.
        if (owned := self._source.still_owned(turn)) is not turn:
            # While we waited, partitions went to another worker, with the records in our hand.
            turn, outputs = owned, self._process(owned, model)
        with self._metrics.stage(Stage.WRITE):
            self._sink.write(outputs)
        self._in_flight = _InFlight(turn, outputs.tally)

    def _process(self, turn: Turn, model: Model) -> Outputs:
        with self._metrics.stage(Stage.DECODE):
            batch = model.decoder.decode(turn.records)
        with self._metrics.stage(Stage.SCORE):
            scored = model.score(batch.features)
        with self._metrics.stage(Stage.ENCODE):
            return to_results(turn.records, batch, scored, model, self._top_features_max)

    def _settle(self, deadline: float | None = None) -> bool:
        """Wait until the turn in flight is acknowledged, then commit it.

        Waiting longer than a moment, it polls the consumer; that may revoke partitions, which
        settles this very turn from within: hence the look at `_in_flight` in every round.
        Returns False if `deadline`, or the stop's, in monotonic seconds, passed first.
        """
        if self._in_flight is None:
            self._sink.settle(0)  # Serves its callbacks: a quiet topic must not make us deaf.
            return True
        started = self._clocks.monotonic()
        with self._metrics.stage(Stage.SETTLE):
            while (waiting := self._in_flight) is not None:
                if self._sink.settle(SLICE_S):
                    # A crash before the commit repeats the turn; one after it does not.
                    self._in_flight = None
                    self._source.commit(waiting.turn)
                    self._metrics.acknowledged(waiting.tally, self._clocks.epoch())
                    return True
                now = self._clocks.monotonic()
                self._health.beat(now)
                if any(end is not None and now >= end for end in (deadline, self._stop_deadline)):
                    return False
                if deadline is None and now - started > POLL_WHILE_SETTLING_AFTER_S:
                    self._source.keep_alive()
        return True

    def _settle_before_revoke(self, limit_s: float) -> None:
        if not self._settle(self._clocks.monotonic() + limit_s):
            log.warning(
                "Partitions are revoked with outputs unacknowledged after %.0f s. Their offsets "
                "are not committed; the next owner reads those records again.",
                limit_s,
            )

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
        if not self._settle():
            raise OutsideError(
                f"the broker did not acknowledge the last turn within {self._stop_timeout_s:g} s; "
                "its offsets are not committed, and its records will be read again"
            )
