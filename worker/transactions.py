"""Writes outputs and offsets in transactions: exactly once, for `read_committed` readers.

One transactional producer a process (`worker.transactional_client`).

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

from confluent_kafka import KafkaError, KafkaException

from worker.background import Call
from worker.committer import GroupOffsets
from worker.delivery import MustAbort
from worker.hold import Hold, Holds
from worker.kafka_client import BrokerWatch, Properties, outside_error
from worker.logs import fields
from worker.metrics import Metrics
from worker.outputs import TOO_LARGE, Refused
from worker.service import SLICE_S
from worker.sink import RETRY_S, Topics, refusal_text
from worker.size_limits import Ask, SizeLimits
from worker.transactional_client import HANGS, TransactionalClient
from worker.turn import Outputs

log = logging.getLogger(__name__)

# Offsets take two round trips. A coordinator that dies makes the client try again, and, when it
# comes back at the wrong moment, wait for ever without heeding its time limit (librdkafka 2.16).
OFFSETS_S, OFFSETS_GIVEN_UP_S = 3.0, 4.0
# The broker was away for longer than the transaction; nothing is wrong with the output.
_OUTLASTED = (KafkaError._MSG_TIMED_OUT, KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT)


class TransactionalSink:
    """`worker.delivery.TransactionalSink` on Kafka."""

    def __init__(
        self,
        properties: Properties,
        topics: Topics,
        ask_limits: Ask,
        new_id: Callable[[], str],
        watch: BrokerWatch,
        metrics: Metrics,
        holds: Holds,
        start_timeout_s: float,
        may_connect: Callable[[], bool] = lambda: True,
    ) -> None:
        """Connect: see `TransactionalClient`.

        Raises:
            OutsideError: the broker refuses, or does not answer in time.
        """
        self.committing = False
        self._topics = topics
        self._watch = watch
        self._metrics = metrics
        self._holds = holds
        self._refused: list[Refused] = []
        # Of a compressed batch the size is not known before it is made.
        codecs = {properties.get(f"compression.{name}", "none") for name in ("type", "codec")}
        compressed = codecs != {"none"}
        self._limits = SizeLimits(topics.shrink(), metrics, dict if compressed else ask_limits)
        self._retry_at = 0.0
        self._open = False  # Whether a transaction is.
        self._sending: Call | None = None
        self._aborts_in_a_row = 0
        hear = partial(metrics.librdkafka.hear, "producer")
        self._client = TransactionalClient(
            properties, new_id, watch, start_timeout_s, may_connect, hear
        )

    def write(self, outputs: Outputs) -> None:
        client = self._client
        if not client.connected and client.broken is None:
            client.connect_now()
        if client.broken is not None:
            return  # Since the last transaction; the turn is done again.
        try:
            client.producer.begin_transaction()
        except KafkaException as exception:
            client.breaks(exception.args[0])
            return
        self._open = True
        self._limits.begin()
        topics = (self._topics.output, self._topics.dead_letter)
        for topic, outgoing in zip(topics, (outputs.scores, outputs.dead_letters), strict=True):
            self._limits.hand_over(client.producer, topic, outgoing, self._on_refused)

    def commit(self, offsets: object, wait_s: float) -> bool:
        if self._client.broken is not None:
            raise MustAbort
        try:
            if not self.committing:
                unsent = self._client.producer.flush(wait_s)
                self._raise_if_refused()  # What waits behind a refusal would never be sent.
                if unsent:
                    return False
                if not self._offsets_are_sent(cast("GroupOffsets", offsets), wait_s):
                    return False
                self.committing = True
            self._client.producer.commit_transaction(wait_s)
        except KafkaException as exception:
            return self._deal_with(exception.args[0])
        self.committing = self._open = False
        self._client.got_on()
        self._limits.turn_is_done()
        self._aborts_in_a_row = 0
        self._holds.end(Hold.OUTPUT, "the outputs are taken again.")
        return True

    def _offsets_are_sent(self, offsets: GroupOffsets, wait_s: float) -> bool:
        """Send the offsets without waiting for longer than `wait_s`. Raises KafkaException."""
        if not offsets.places:
            return True
        if self._sending is None:
            send = partial(self._client.producer.send_offsets_to_transaction, *offsets, OFFSETS_S)
            self._sending = Call(send)
        return self._sending_is_over(self._sending, wait_s)

    def _sending_is_over(self, sending: Call, wait_s: float) -> bool:
        """Return whether the offsets are sent. Raises KafkaException where that failed."""
        if not sending.wait(wait_s):
            if time.monotonic() - sending.began > OFFSETS_GIVEN_UP_S:
                self._sending = None
                raise KafkaException(HANGS)
            return False
        self._sending = None
        if sending.error is not None:
            raise sending.error
        return True

    def abort(self, wait_s: float) -> bool:
        self.committing = False
        self._watch.raise_if_refused()
        client = self._client
        try:
            under_way = self._sending if client.broken is None else None
            if under_way is not None and not self._sending_is_over(under_way, wait_s):
                return False
        except KafkaException as exception:
            if exception.args[0].fatal():
                client.breaks(exception.args[0])
        try:
            if client.broken is not None:
                client.begin_anew()
                self._open, self._sending = False, None
            if not client.connected and not client.connect(wait_s):
                return False
            if self._open:
                client.producer.abort_transaction(wait_s)
        except KafkaException as exception:
            error = exception.args[0]
            if error.fatal():
                client.breaks(error)
            elif error.retriable():
                client.may_wait()
            elif not error.txn_requires_abort():
                raise outside_error("a transaction cannot be aborted", error) from None
            return False
        self._open = False
        client.got_on()
        if time.monotonic() < self._retry_at:
            client.producer.poll(wait_s)
            return False
        self._refused.clear()
        return True

    def idle(self) -> None:
        self._client.idle()

    def close(self) -> None:
        """Leave nothing open, so that our successor need not wait for a time-out."""
        if self.committing:
            log.warning(
                "Whether the last transaction is committed is not known; its turn counts "
                "once in either case."
            )
        elif self._open and self._client.broken is None:
            try:
                self._client.producer.purge()
                self._client.producer.abort_transaction(SLICE_S * 10)
            except KafkaException as exception:
                log.warning("The open transaction is left to its time-out: %s", exception)

    def _deal_with(self, error: KafkaError) -> bool:
        """Return False where the same call is to be made again.

        Raises:
            MustAbort: it is not.
        """
        self._watch.raise_if_refused()
        self._raise_if_refused()
        if error.fatal():
            self._client.breaks(error)
        elif error.retriable() and self._client.may_wait():
            return False
        self._metrics.committed("failed")
        log.warning(
            "A transaction is aborted, and its turn done again: %s.",
            error.str(),
            extra=fields(outcome="failed", code=error.name()),
        )
        # What is wrong may last: not too soon, and less and less often.
        self._aborts_in_a_row += 1
        pause_s = min(RETRY_S, 0.1 * 2**self._aborts_in_a_row)
        self._retry_at = time.monotonic() + pause_s
        raise MustAbort(is_unknown=error.code() == KafkaError.UNKNOWN_MEMBER_ID)

    def _on_refused(self, refused: Refused) -> None:
        self._metrics.not_taken(refused.error.name())
        self._refused.append(refused)

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
