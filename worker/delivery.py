"""How a turn's outputs and its offsets reach the broker: the two promises of delivery.

At least once: outputs first; once they are acknowledged, the offsets. A crash between the two
repeats the turn.

Exactly once: outputs and offsets in one transaction, which the broker commits as a whole or not
at all. The producer is fenced by its consumer's membership, read afresh for each transaction
(KIP-447). What is aborted is read, scored and written again. Where the client fails while it
commits, only the group's offsets know whether that was done.

Pure of Kafka: `worker.sink`, `worker.transactions` and `worker.source` talk to it.
"""

from __future__ import annotations

from typing import Protocol

from worker.service import Settled, Source
from worker.turn import Outputs, Turn


class CommittingSource(Source, Protocol):
    """A source that commits, and that knows which turns are done."""

    def commit(self, turn: Turn) -> None:
        """Commit a turn whose outputs are all acknowledged. Partitions that are no longer ours,
        by the turn's assignment numbers, are left alone."""

    def transaction_offsets(self, turn: Turn) -> object:
        """Return what a transaction must hold of this turn: its offsets and our membership."""

    def done(self, turn: Turn) -> None:
        """Take note that a turn is committed by its transaction."""

    def refused_as_unknown(self) -> None:
        """The group refused a transaction's offsets because it does not know us."""

    def place_anew(self) -> None:
        """Begin where the group's commits say: whether they hold the last turn is not known. If
        they do, that turn counts, though no counter of ours has seen it."""


class Sink(Protocol):
    """Where outputs go."""

    def write(self, outputs: Outputs) -> None:
        """Hand over a turn's outputs, all of them; do not wait for acknowledgements."""

    def settle(self, wait_s: float) -> bool:
        """Return whether everything written is acknowledged; wait at most `wait_s` for it.

        Raises:
            OutsideError: the client failed for good.
        """

    def close(self) -> None:
        """Let go of what is not yet delivered."""


class TransactionalSink(Protocol):
    """Where outputs go, and the offsets with them."""

    @property
    def committing(self) -> bool:
        """Whether the offsets are in the transaction: from there on only the broker decides."""

    def write(self, outputs: Outputs) -> None:
        """Begin a transaction, and hand over all outputs; do not wait."""

    def commit(self, offsets: object, wait_s: float) -> bool:
        """Return whether the transaction is committed; wait about `wait_s`. May be called again.

        Raises:
            MustAbort: the transaction cannot be committed.
            OutsideError: the client failed for good.
        """

    def abort(self, wait_s: float) -> bool:
        """Return whether the transaction is aborted and another may begin; as `commit`."""

    def idle(self) -> None:
        """Serve callbacks."""

    def close(self) -> None:
        """Abort what is not committed."""


class MustAbort(Exception):
    """The transaction cannot be committed; its turn must be done again. `is_unknown`: because the
    group does not know us."""

    def __init__(self, *, is_unknown: bool = False) -> None:
        super().__init__()
        self.is_unknown = is_unknown


class AtLeastOnce:
    """`worker.service.Delivery`: settle, then commit."""

    def __init__(self, source: CommittingSource, sink: Sink) -> None:
        self._source = source
        self._sink = sink
        self.write = sink.write
        self.close = sink.close

    def settle(self, turn: Turn, wait_s: float) -> Settled:
        if not self._sink.settle(wait_s):
            return Settled.WAITING
        # A crash before the commit repeats the turn; one after it does not.
        self._source.commit(turn)
        return Settled.DONE

    def idle(self) -> None:
        self._sink.settle(0)


class ExactlyOnce:
    """`worker.service.Delivery`: one transaction a turn."""

    def __init__(self, source: CommittingSource, sink: TransactionalSink) -> None:
        self._source = source
        self._sink = sink
        self._aborting = False
        self._may_be_committed = False
        self.write = sink.write
        self.idle = sink.idle
        self.close = sink.close

    def settle(self, turn: Turn, wait_s: float) -> Settled:
        if not self._sink.committing and self._source.still_owned(turn) is not turn:
            self._aborting = True  # Another worker answers for some of its records by now.
        if not self._aborting:
            try:
                if not self._sink.commit(self._source.transaction_offsets(turn), wait_s):
                    return Settled.WAITING
            except MustAbort as why:
                self._aborting, self._may_be_committed = True, self._sink.committing
                if why.is_unknown:
                    self._source.refused_as_unknown()
            else:
                self._source.done(turn)
                return Settled.DONE
        if not self._sink.abort(wait_s):
            return Settled.WAITING
        if self._may_be_committed:
            self._source.place_anew()
        else:
            self._source.rewind()
        self._aborting = self._may_be_committed = False
        return Settled.UNDONE
