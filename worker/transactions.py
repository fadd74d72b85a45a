"""Writes outputs and offsets in transactions: exactly once, for `read_committed` readers.

One transactional producer a process. Its id is the group's and the static member's, where there
is one, so that a restarted worker ends the transaction that its predecessor left open; else it is
new each time, and the broker ends what a dead worker left after `transaction.timeout.ms`.

A refused output aborts the transaction. If it was too large, the turn is written again with more
care (`worker.size_limits`); if it was refused for anything else, the worker holds and the turn is
tried again later.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import cast
from uuid import uuid4

from confluent_kafka import KafkaError, KafkaException, Producer

from schemas.errors import OutsideError
from worker.background import Call
from worker.committer import GroupOffsets
from worker.delivery import MustAbort
from worker.hold import Hold, Holds
from worker.kafka_client import BrokerWatch, Properties, make_client, outside_error
from worker.metrics import Metrics
from worker.outputs import TOO_LARGE, Refused
from worker.service import SLICE_S
from worker.sink import RETRY_S, Topics, refusal_text
from worker.size_limits import SizeLimits
from worker.turn import Outputs

log = logging.getLogger(__name__)

# Offsets take two round trips. A coordinator that dies makes the client try again, and, when it
# comes back at the wrong moment, wait for ever without heeding its time limit (librdkafka 2.16).
OFFSETS_S, OFFSETS_GIVEN_UP_S = 3.0, 4.0
# The broker was away for longer than the transaction; nothing is wrong with the output.
_OUTLASTED = (KafkaError._MSG_TIMED_OUT, KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT)


_abandoned: list[Producer] = []  # To end one that hangs would hang as well.


def transactional_id(group: str, static_id: str | None) -> str:
    """Return the id of this process's producer."""
    return f"{group}-{static_id or uuid4().hex}"


class TransactionalSink:
    """`worker.delivery.TransactionalSink` on Kafka."""

    def __init__(
        self,
        properties: Properties,
        topics: Topics,
        new_id: Callable[[], str],
        watch: BrokerWatch,
        metrics: Metrics,
        holds: Holds,
        start_timeout_s: float,
        may_connect: Callable[[], bool] = lambda: True,
    ) -> None:
        """Connect, and end what a predecessor of the same id left open; where `may_connect` does
        not allow it yet, once it does. A static id's holder would be fenced by one whom the
        group then refuses.

        Raises:
            OutsideError: the broker refuses, or does not answer in time.
        """
        self.committing = False
        self._topics = topics
        self._new_id = new_id
        self._watch = watch
        self._metrics = metrics
        self._holds = holds
        self._properties: Properties = {**properties, "error_cb": self._on_error}
        self._refused: list[Refused] = []
        self._limits = SizeLimits(topics.shrink(), metrics)
        self._retry_at = 0.0
        self._open = False  # Whether a transaction is.
        self._sending: Call | None = None
        self._aborts_in_a_row = 0
        self._broken: KafkaError | None = None  # The client is of no use any more.
        self._id = ""
        self._connected = False
        self._producer = self._new_producer()
        self._may_connect = may_connect
        self._start_timeout_s = start_timeout_s
        if may_connect():
            self._connect_now()

    def write(self, outputs: Outputs) -> None:
        if not self._connected and self._broken is None:
            self._connect_now()
        try:
            self._producer.begin_transaction()
        except KafkaException as exception:
            self._broken = exception.args[0]  # It failed for good since the last transaction.
            return
        self._open = True
        topics = (self._topics.output, self._topics.dead_letter)
        for topic, outgoing in zip(topics, (outputs.scores, outputs.dead_letters), strict=True):
            self._limits.hand_over(self._producer, topic, outgoing, self._refused.append)

    def commit(self, offsets: object, wait_s: float) -> bool:
        if self._broken is not None:
            raise MustAbort
        try:
            if not self.committing:
                if self._producer.flush(wait_s):
                    return False
                self._raise_if_refused()
                if not self._offsets_are_sent(cast("GroupOffsets", offsets), wait_s):
                    return False
                self.committing = True
            self._producer.commit_transaction(wait_s)
        except KafkaException as exception:
            return self._deal_with(exception.args[0])
        self.committing = self._open = False
        self._limits.forget_chunks()
        self._aborts_in_a_row = 0
        self._holds.end(Hold.OUTPUT, "the outputs are taken again.")
        return True

    def _offsets_are_sent(self, offsets: GroupOffsets, wait_s: float) -> bool:
        """Send the offsets without waiting for longer than `wait_s`. Raises KafkaException."""
        if not offsets.places:
            return True
        if self._sending is None:
            send = partial(self._producer.send_offsets_to_transaction, *offsets, OFFSETS_S)
            self._sending = Call(send)
        return self._sending_is_over(self._sending, wait_s)

    def _sending_is_over(self, sending: Call, wait_s: float) -> bool:
        """Return whether the offsets are sent. Raises KafkaException where that failed."""
        if not sending.wait(wait_s):
            if time.monotonic() - sending.began > OFFSETS_GIVEN_UP_S:
                self._sending = None
                _abandoned.append(self._producer)
                raise KafkaException(
                    KafkaError(KafkaError._TIMED_OUT, "the client hangs", fatal=True)
                )
            return False
        self._sending = None
        if sending.error is not None:
            raise sending.error
        return True

    def abort(self, wait_s: float) -> bool:
        self.committing = False
        self._watch.raise_if_refused()
        try:
            if self._sending is not None and not self._sending_is_over(self._sending, wait_s):
                return False
        except KafkaException as exception:
            self._broken = exception.args[0] if exception.args[0].fatal() else self._broken
        try:
            if self._broken is not None:
                self._begin_anew(self._broken)
            if not self._connected and not self._connect(wait_s):
                return False
            if self._open:
                self._producer.abort_transaction(wait_s)
        except KafkaException as exception:
            error = exception.args[0]
            if error.fatal():
                self._broken = error
            elif not error.retriable() and not error.txn_requires_abort():
                raise outside_error("a transaction cannot be aborted", error) from None
            return False
        self._open = False
        if time.monotonic() < self._retry_at:
            self._producer.poll(wait_s)
            return False
        self._refused.clear()
        return True

    def idle(self) -> None:
        self._producer.poll(0)
        if not self._connected and self._broken is None and self._may_connect():
            self._connect(SLICE_S)
        self._watch.raise_if_refused()

    def close(self) -> None:
        """Leave nothing open, so that our successor need not wait for a time-out."""
        if self.committing:
            log.warning(
                "Whether the last transaction is committed is not known; its turn counts "
                "once in either case."
            )
        elif self._open and self._broken is None:
            try:
                self._producer.purge()
                self._producer.abort_transaction(SLICE_S * 10)
            except KafkaException as exception:
                log.warning("The open transaction is left to its time-out: %s", exception)

    def _new_producer(self) -> Producer:
        self._id = self._new_id()
        self._connected = False
        return make_client(Producer, {**self._properties, "transactional.id": self._id})

    def _connect(self, wait_s: float) -> bool:
        """Return whether the broker grants our id; wait about `wait_s`. May be called again.

        Raises:
            OutsideError: it refuses.
        """
        self._watch.raise_if_refused()
        try:
            self._producer.init_transactions(wait_s)
        except KafkaException as exception:
            if exception.args[0].retriable():
                return False
            raise self._refused_id(exception) from None
        self._connected = True
        return True

    def _connect_now(self) -> None:
        deadline = time.monotonic() + self._start_timeout_s
        while not self._connect(SLICE_S * 10):
            if time.monotonic() > deadline:
                raise self._refused_id(KafkaError(KafkaError._TIMED_OUT))

    def _refused_id(self, why: KafkaException | KafkaError) -> OutsideError:
        return outside_error(
            f"transactional id {self._id} cannot be had. Check that a broker answers, and that "
            "this user may write to that transactional id",
            why,
        )

    def _begin_anew(self, error: KafkaError) -> None:
        """Take a new producer where nobody else can have ours: it only outlasted its time-out.

        Raises:
            OutsideError: another worker has our id.
        """
        if error.code() == KafkaError._FENCED and self._new_id() == self._id:
            raise OutsideError(
                f"another worker took over transactional id {self._id} ({error.str()}), or ours "
                "was away for longer than transaction.timeout.ms. Stopping; nothing of the turn "
                "in hand counts. Each worker needs a group.instance.id of its own"
            )
        log.warning("The producer is of no use any more: %s. Taking a new one.", error.str())
        self._producer = self._new_producer()
        self._broken, self._open = None, False

    def _deal_with(self, error: KafkaError) -> bool:
        """Return False where the same call is to be made again.

        Raises:
            MustAbort: it is not.
        """
        self._watch.raise_if_refused()
        self._raise_if_refused()
        if error.fatal():
            self._broken = error
        elif error.retriable():
            return False
        self._metrics.committed("failed")
        log.warning("A transaction is aborted, and its turn done again: %s.", error.str())
        # What is wrong may last: not too soon, and less and less often.
        self._aborts_in_a_row += 1
        pause_s = min(RETRY_S, 0.1 * 2**self._aborts_in_a_row)
        self._retry_at = time.monotonic() + pause_s
        raise MustAbort

    def _raise_if_refused(self) -> None:
        """Have the transaction aborted if an output was refused, and see to the next try."""
        if not self._refused:
            return
        # What follows a refusal is purged, and what has waited too long says nothing of itself.
        told = [refused for refused in self._refused if refused.error.code() not in _OUTLASTED]
        too_large = [refused for refused in told if refused.error.code() == TOO_LARGE]
        if not told:
            log.warning("Outputs outlasted their transaction: no broker took them in time.")
        elif not too_large or not self._limits.note(too_large):
            self._hold(told[0])
        raise MustAbort

    def _hold(self, refused: Refused) -> None:
        self._holds.begin(Hold.OUTPUT, refusal_text(refused))
        self._retry_at = time.monotonic() + RETRY_S

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._broken = error  # The call in hand says so too, and it is dealt with there.
        else:
            self._watch.on_error(error)
