"""The client of transactions: its id, its connection, and its successor when it is of no use.

Its id is the group's and the static member's, where there is one, so that a restarted worker ends
the transaction that its predecessor left open; else it is new each time, and the broker ends what
a dead worker left after `transaction.timeout.ms`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from uuid import uuid4

from confluent_kafka import KafkaError, KafkaException, Producer

from schemas.errors import OutsideError
from worker.kafka_client import (
    BrokerWatch,
    Properties,
    make_client,
    outside_error,
)
from worker.service import SLICE_S
from worker.statistics import Statistics, read_statistics

log = logging.getLogger(__name__)

HANGS = KafkaError(KafkaError._TIMED_OUT, "the client hangs", fatal=True)
FORGETFUL = KafkaError(KafkaError._TRANSPORT, "the client has forgotten all brokers", fatal=True)

_abandoned: list[Producer] = []  # To end one that hangs would hang as well.


def transactional_id(group: str, static_id: str | None) -> str:
    """Return the id of this process's producer."""
    return f"{group}-{static_id or uuid4().hex}"


class TransactionalClient:
    """A transactional producer, or the one that took its place. `broken` says why it is of no use
    any more, `connected` whether the broker has granted its id."""

    def __init__(
        self,
        properties: Properties,
        new_id: Callable[[], str],
        watch: BrokerWatch,
        start_timeout_s: float,
        may_connect: Callable[[], bool],
        hear: Callable[[Statistics], None] = lambda _: None,
    ) -> None:
        """Connect, and end what a predecessor of the same id left open; where `may_connect` does
        not allow it yet, once it does. A static id's holder would be fenced by one whom the
        group then refuses.

        Raises:
            OutsideError: the broker refuses, or does not answer in time.
        """
        self.broken: KafkaError | None = None
        self.connected = False
        self._new_id = new_id
        self._watch = watch
        self._properties: Properties = {
            **properties,
            "error_cb": self._on_error,
            "stats_cb": self._on_statistics,
        }
        self._wait_max_s = int(properties["transaction.timeout.ms"]) / 1000
        self._waiting_since: float | None = None
        self._start_timeout_s = start_timeout_s
        self._may_connect = may_connect
        self._hear = hear
        self._id = ""
        self.producer = self._new_producer()
        if may_connect():
            self.connect_now()

    def connect(self, wait_s: float) -> bool:
        """Return whether the broker grants our id; wait about `wait_s`. May be called again.

        Raises:
            OutsideError: it refuses.
        """
        self._watch.raise_if_refused()
        try:
            self.producer.init_transactions(wait_s)
        except KafkaException as exception:
            if not exception.args[0].retriable():
                raise self._refused_id(exception) from None
            self.producer.poll(0)
            # A coordinator may take its time to load, and so no less than at a start.
            if self._waits_for_longer_than(self._start_timeout_s):
                self.breaks(HANGS)
            if self._is_stuck:
                self.begin_anew()
            return False
        self.connected = True
        self.got_on()
        return True

    def connect_now(self) -> None:
        """Have our id granted before anything else.

        Raises:
            OutsideError: the broker refuses, or does not answer within the start's limit.
        """
        deadline = time.monotonic() + self._start_timeout_s
        while not self.connect(SLICE_S * 10):
            if time.monotonic() > deadline:
                raise self._refused_id(KafkaError(KafkaError._TIMED_OUT))

    def idle(self) -> None:
        """Serve callbacks, and connect as soon as that is allowed."""
        self.producer.poll(0)
        if not self.connected and self.broken is None and self._may_connect():
            self.connect(SLICE_S)
        self._watch.raise_if_refused()

    def may_wait(self) -> bool:
        """Return whether to make a call again that came to nothing.

        Not for longer than a transaction may last, counted while a broker answers: the client
        hangs then, and is broken, as is one that has forgotten all brokers.
        """
        self.producer.poll(0)  # Such calls serve no callbacks.
        if self.broken is not None:
            return False
        if not self._waits_for_longer_than(self._wait_max_s):
            return True
        self.breaks(HANGS)
        return False

    @property
    def _is_stuck(self) -> bool:
        """Whether it is broken by its own fault: it can be replaced, and cannot be ended."""
        return self.broken is HANGS or self.broken is FORGETFUL

    def _waits_for_longer_than(self, limit_s: float) -> bool:
        now = time.monotonic()
        if self._waiting_since is None or not self._watch.a_broker_answers:
            self._waiting_since = now
        return now - self._waiting_since >= limit_s

    def breaks(self, why: KafkaError) -> None:
        """It is of no use any more. The first reason stands, unless it was fenced meanwhile."""
        if self.broken is None or why.code() == KafkaError._FENCED:
            if self._is_stuck:
                self.abandon()
            self.broken = why

    def got_on(self) -> None:
        """A call has come to something."""
        self._waiting_since = None

    def abandon(self) -> None:
        """Leave a client that hangs alone."""
        _abandoned.append(self.producer)

    def begin_anew(self) -> None:
        """Take a new producer where nobody else can have ours: it only outlasted its time-out.

        Raises:
            OutsideError: another worker has our id.
        """
        assert self.broken is not None  # noqa: S101  # Only one that is of no use is replaced.
        if self.broken.code() == KafkaError._FENCED and self._new_id() == self._id:
            raise OutsideError(
                f"another worker took over transactional id {self._id} ({self.broken.str()}), or "
                "ours was away for longer than transaction.timeout.ms. Stopping; nothing of the "
                "turn in hand counts. Each worker needs a group.instance.id of its own"
            )
        log.warning("The producer is of no use any more: %s. Taking a new one.", self.broken.str())
        if self._is_stuck:
            self.abandon()
        self.producer = self._new_producer()
        self.broken = None
        self.got_on()

    def _new_producer(self) -> Producer:
        self._id = self._new_id()
        self.connected = False
        return make_client(Producer, {**self._properties, "transactional.id": self._id})

    def _refused_id(self, why: KafkaException | KafkaError) -> OutsideError:
        return outside_error(
            f"transactional id {self._id} cannot be had. Check that a broker answers, and that "
            "this user may write to that transactional id",
            why,
        )

    def _on_statistics(self, text: str) -> None:
        statistics = read_statistics(text)
        self._hear(statistics)
        if not statistics.knows_a_broker:
            self.breaks(FORGETFUL)

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self.breaks(error)  # The call in hand says so too, and it is dealt with there.
        else:
            self._watch.on_error(error)
