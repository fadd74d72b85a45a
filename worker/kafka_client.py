"""What the two Kafka clients share: their properties, and what librdkafka says on the side.

Wrong credentials and untrusted certificates are not fatal to librdkafka: it tells them to its
error callback alone and then tries for ever. `BrokerWatch` turns them into a clear stop.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

from confluent_kafka import KafkaError, KafkaException

from schemas.errors import OutsideError, SettingsError
from worker.health import Health
from worker.logs import fields
from worker.statistics import Statistics

log = logging.getLogger(__name__)
librdkafka_log = logging.getLogger("librdkafka")

Properties = dict[str, Any]
_Client = TypeVar("_Client")


# Only these two are certain to need a person: nothing heals a wrong password.
_NEEDS_A_PERSON = (KafkaError._AUTHENTICATION, KafkaError._SSL)

# What is fatal to the consumer is a group's matter: what to do about it, by what its text names.
_GROUP_ADVICE = {
    KafkaError(KafkaError.FENCED_INSTANCE_ID).str(): (
        "another worker has started with our KAFKA_CONSUMER_GROUP_INSTANCE_ID and has our "
        "partitions now. Each worker needs a group.instance.id of its own"
    ),
    KafkaError(KafkaError.UNRELEASED_INSTANCE_ID).str(): (
        "another worker has this KAFKA_CONSUMER_GROUP_INSTANCE_ID, or had it and died: with "
        "group.protocol=consumer its place is kept until its session has expired (45 s unless the "
        "broker says otherwise). Each worker needs a group.instance.id of its own; after a death, "
        "start again"
    ),
    "not supported: ConsumerGroupHeartbeat": (
        "this broker does not offer KAFKA_CONSUMER_GROUP_PROTOCOL=consumer (Kafka 4.0 does, unless "
        "its group.coordinator.rebalance.protocols leaves it out). Leave that setting out"
    ),
}

# librdkafka passes these on for our information and heals them by itself.
HEALS = frozenset(
    getattr(KafkaError, name)
    for name in (
        "_ALL_BROKERS_DOWN",
        "_PARTITION_EOF",
        "_RESOLVE",
        "_TIMED_OUT",
        "_TRANSPORT",
        "_WAIT_COORD",
        "COORDINATOR_LOAD_IN_PROGRESS",
        "COORDINATOR_NOT_AVAILABLE",
        "ILLEGAL_GENERATION",
        "LEADER_NOT_AVAILABLE",
        "NETWORK_EXCEPTION",
        "NOT_COORDINATOR",
        "NOT_LEADER_FOR_PARTITION",
        "REBALANCE_IN_PROGRESS",
        "REQUEST_TIMED_OUT",
        "UNKNOWN_MEMBER_ID",
    )
)

# What is said of a partition or an offset that may be told later.
PASSING = HEALS | {
    KafkaError._NOENT,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError.FENCED_LEADER_EPOCH,  # Ours or the broker's metadata is of before,
    KafkaError.UNKNOWN_LEADER_EPOCH,  # as where a topic is made again.
    KafkaError.KAFKA_STORAGE_ERROR,
    KafkaError.OFFSET_NOT_AVAILABLE,
    KafkaError.REPLICA_NOT_AVAILABLE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.UNSTABLE_OFFSET_COMMIT,
}


class BrokerWatch:
    """Hears both clients' error callbacks and the consumer's statistics."""

    def __init__(
        self,
        health: Health,
        now: Callable[[], float] = time.monotonic,
        *,
        classic_group: bool = False,
    ) -> None:
        self._health = health
        self._now = now
        self._classic_group = classic_group
        self._refusal: str | None = None

    def on_error(self, error: KafkaError) -> None:
        """librdkafka's `error_cb`."""
        if error.fatal() or (error.code() in _NEEDS_A_PERSON and not _is_passing(error)):
            self._refusal = f"{error.str()}. Stopping; nothing unacknowledged was committed. " + (
                _group_advice(error) or "Check KAFKA_SASL_*, KAFKA_SSL_* and the broker's log"
            )
        elif error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._reachable(reachable=False)
        else:
            log.debug("librdkafka: %s", error.str())

    def on_statistics(self, statistics: Statistics) -> None:
        """Hear the only word that a broker is back when nothing flows, and of our membership."""
        self._reachable(reachable=any(b.state == "UP" for b in statistics.brokers.values()))
        is_in = statistics.is_in_group(classic=self._classic_group)
        self._health.hear_of_membership(self._now(), is_in=is_in)

    @property
    def a_broker_answers(self) -> bool:
        return self._health.broker_reachable

    def raise_if_refused(self) -> None:
        """Raise what no waiting will heal.

        Raises:
            OutsideError: credentials or certificate were refused, or a client failed for good.
        """
        if self._refusal is not None:
            raise OutsideError(f"the broker connection failed for good: {self._refusal}")

    def _reachable(self, *, reachable: bool) -> None:
        if reachable != self._health.broker_reachable:
            self._health.broker_reachable = reachable
            if reachable:
                log.info("A broker answers again.", extra=fields(state="up"))
            else:
                log.warning(
                    "No broker answers. Waiting for one; nothing is dropped.",
                    extra=fields(state="down"),
                )


def deal_with(error: KafkaError, what: str) -> None:
    """Take note of what the consumer returned instead of a record; `what` says what it was at.

    Raises:
        OutsideError: reading cannot go on.
    """
    if error.code() == KafkaError._MAX_POLL_EXCEEDED:
        log.error("%s. Rejoining; the records in hand are dropped and read again.", error.str())
    elif (advice := _group_advice(error)) is not None:
        raise OutsideError(f"{what} ended: {advice} ({error.str()})")
    elif error.code() not in HEALS or error.fatal():
        raise outside_error(f"{what} failed", error)
    else:
        log.debug("librdkafka: %s", error.str())


def _group_advice(error: KafkaError) -> str | None:
    """Return what to do about a fatal error of the consumer's; its code says only that."""
    text = error.str()
    return next((advice for named, advice in _GROUP_ADVICE.items() if named in text), None)


def _is_passing(error: KafkaError) -> bool:
    """Return whether a failed handshake is only a lost connection.

    librdkafka gives all of them the code of wrong credentials, also when a broker that restarts
    or a load balancer cuts the connection in the middle of one.
    """
    text = error.str()
    return any(word in text for word in ("transport failure", "Disconnected", "imed out"))


def make_client(kind: Callable[..., _Client], properties: Properties) -> _Client:
    """Return a client of this kind; its log lines become ours.

    Raises:
        SettingsError: librdkafka does not take a property's value.
    """
    try:
        return kind(properties, logger=librdkafka_log)
    except KafkaException as error:
        raise SettingsError(
            f"librdkafka does not take a KAFKA_* setting: {error.args[0].str()}; not starting"
        ) from None


def outside_error(what: str, error: KafkaException | KafkaError) -> OutsideError:
    """Return an `OutsideError` that says what we were at and what Kafka answered."""
    kafka_error = error.args[0] if isinstance(error, KafkaException) else error
    text = kafka_error.str() if isinstance(kafka_error, KafkaError) else str(kafka_error)
    return OutsideError(f"{what}: {text}")
