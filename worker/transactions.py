"""Writes outputs and offsets in transactions: exactly once, for `read_committed` readers.

One transactional producer a process. Its id is the group's and the static member's, where there
is one, so that a restarted worker ends the transaction that its predecessor left open; else it is
new each time, and the broker ends what a dead worker left after `transaction.timeout.ms`.

A refused output aborts the transaction. If it was too large, the turn is written again in chunks,
since a broker refuses whole batches: smaller ones each time, until one output alone is refused.
From then on whatever is as large is written in a smaller form at once. If it was refused for
anything else, the worker holds and the turn is tried again later.
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
from worker.outputs import TOO_LARGE, Form, Output, Refused, hand_over, hand_over_one
from worker.service import SLICE_S
from worker.sink import RETRY_S, Topics, refusal_text
from worker.turn import Outgoing, Outputs

log = logging.getLogger(__name__)

# Offsets take two round trips. A coordinator that dies makes the client try again, and, when it
# comes back at the wrong moment, wait for ever without heeding its time limit (librdkafka 2.16).
OFFSETS_S, OFFSETS_GIVEN_UP_S = 3.0, 4.0
# After a refusal for size: the bytes of the first chunks, and how much smaller the next are.
CHUNK_BYTES, CHUNK_SHRINK = 64 * 1024, 8
CHUNK_S = 5.0


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
    ) -> None:
        """Connect, and end what a predecessor of the same id left open.

        Raises:
            OutsideError: the broker refuses, or does not answer in time.
        """
        self.committing = False
        self._topics = topics
        self._shrink = topics.shrink()
        self._new_id = new_id
        self._watch = watch
        self._metrics = metrics
        self._holds = holds
        self._start_timeout_s = start_timeout_s
        self._properties: Properties = {**properties, "error_cb": self._on_error}
        self._refused: list[Refused] = []
        self._too_large: dict[str, int] = {}  # Topic -> the smallest size that it refused.
        self._chunk_bytes: int | None = None  # None: the client makes its batches as it likes.
        self._retry_at = 0.0
        self._open = False  # Whether a transaction is.
        self._sending: Call | None = None
        self._given_up_at = 0.0
        self._broken: KafkaError | None = None  # The client is of no use any more.
        self._id = ""
        self._producer = self._connected()

    def write(self, outputs: Outputs) -> None:
        try:
            self._producer.begin_transaction()
        except KafkaException as exception:
            self._broken = exception.args[0]  # It failed for good since the last transaction.
            return
        self._open = True
        topics = (self._topics.output, self._topics.dead_letter)
        for topic, outgoing in zip(topics, (outputs.scores, outputs.dead_letters), strict=True):
            if self._chunk_bytes is not None or topic in self._too_large:
                self._write_with_care(topic, outgoing)
            else:
                hand_over(self._producer, topic, outgoing, self._refused.append)

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
        self._chunk_bytes = None
        self._holds.end(Hold.OUTPUT, "the outputs are taken again.")
        return True

    def _offsets_are_sent(self, offsets: GroupOffsets, wait_s: float) -> bool:
        """Send the offsets without waiting for longer than `wait_s`. Raises KafkaException."""
        if not offsets.places:
            return True
        if self._sending is None:
            self._given_up_at = time.monotonic() + OFFSETS_GIVEN_UP_S
            send = partial(self._producer.send_offsets_to_transaction, *offsets, OFFSETS_S)
            self._sending = Call(send)
        return self._sending_is_over(self._sending, wait_s)

    def _sending_is_over(self, sending: Call, wait_s: float) -> bool:
        """Return whether the offsets are sent. Raises KafkaException where that failed."""
        if not sending.wait(wait_s):
            if time.monotonic() > self._given_up_at:
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
            elif self._open:
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
        self._watch.raise_if_refused()

    def close(self) -> None:
        """Leave nothing open, so that our successor need not wait for a time-out."""
        if self._open and self._broken is None:
            try:
                self._producer.purge()
                self._producer.abort_transaction(SLICE_S * 10)
            except KafkaException as exception:
                log.warning("The open transaction is left to its time-out: %s", exception)

    def _connected(self) -> Producer:
        self._id = self._new_id()
        producer = make_client(Producer, {**self._properties, "transactional.id": self._id})
        deadline = time.monotonic() + self._start_timeout_s
        while True:
            try:
                producer.init_transactions(SLICE_S * 10)
                break
            except KafkaException as exception:
                self._watch.raise_if_refused()
                error = exception.args[0]
                if not error.retriable() or time.monotonic() > deadline:
                    raise outside_error(
                        f"transactional id {self._id} cannot be had; not starting. Check that "
                        "this user may write to that transactional id",
                        error,
                    ) from None
        return producer

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
        self._producer = self._connected()
        self._broken = None

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
        log.warning("A transaction is aborted, and its turn done again: %s.", error.str())
        raise MustAbort

    def _raise_if_refused(self) -> None:
        """Have the transaction aborted if an output was refused, and see to the next try."""
        if not self._refused:
            return
        refused = self._refused[0]
        if refused.error.code() != TOO_LARGE:
            self._hold(refused)
        elif len(self._refused) == 1:
            self._note_too_large(refused)  # It had a batch of its own.
        else:
            chunk = self._chunk_bytes
            self._chunk_bytes = CHUNK_BYTES if chunk is None else chunk // CHUNK_SHRINK
        raise MustAbort

    def _note_too_large(self, refused: Refused) -> None:
        topic, size = refused.output.topic, refused.output.bytes()
        if topic not in self._shrink or size >= self._too_large.get(topic, size + 1):
            self._hold(refused)  # It was in its smallest form.
            return
        self._too_large[topic] = size
        self._metrics.truncated(1)
        log.warning("An output is too large for %s; it is written in a smaller form.", topic)

    def _hold(self, refused: Refused) -> None:
        self._holds.begin(Hold.OUTPUT, refusal_text(refused))
        self._retry_at = time.monotonic() + RETRY_S

    def _write_with_care(self, topic: str, outgoing: Outgoing) -> None:
        headers = outgoing.headers or [[] for _ in outgoing.values]
        waiting = 0
        for record in zip(outgoing.values, outgoing.keys, headers, strict=True):
            output = self._as_small_as_it_must(Output(topic, *record))
            if self._chunk_bytes is not None and waiting + output.bytes() > self._chunk_bytes:
                self._producer.flush(CHUNK_S)
                waiting = 0
            if self._refused:
                return
            hand_over_one(self._producer, output, self._refused.append)
            waiting += output.bytes()

    def _as_small_as_it_must(self, output: Output) -> Output:
        limit = self._too_large.get(output.topic)
        for form in (Form.SMALLER, Form.SMALLEST):
            if limit is not None and output.bytes() >= limit:
                output = self._shrink[output.topic](output, form)
        return output

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._broken = error  # The call in hand says so too, and it is dealt with there.
        else:
            self._watch.on_error(error)
