"""Before the first turn: is a broker there, has it our topics, and how large may a batch be?"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # Re-exported, untyped.
    AclOperation,
    AdminClient,
    ConfigResource,
)

from schemas.errors import OutsideError
from worker.kafka_client import BrokerWatch, Properties, make_client, outside_error
from worker.kafka_properties import ClientProperties
from worker.settings import Settings

log = logging.getLogger(__name__)

ASK_S = 2.0
_SHARED = ("bootstrap.", "client.", "sasl.", "security.", "socket.", "ssl.")
# What a batch takes beside its records, with room to spare.
BATCH_SHARE = 0.9


def make_admin(properties: Properties, watch: BrokerWatch) -> AdminClient:
    """Return a client for questions, with the consumer's connection."""
    shared: Properties = {n: value for n, value in properties.items() if n.startswith(_SHARED)}
    return make_client(AdminClient, {**shared, "error_cb": watch.on_error})


def wait_for_topics(
    settings: Settings, servers: str, admin: AdminClient, watch: BrokerWatch
) -> None:
    """Wait for a broker that has our topics.

    Raises:
        OutsideError: no broker answered in time, or it has not our topics.
    """
    deadline = time.monotonic() + settings.start_timeout_s
    waiting = False
    while True:
        try:
            topics = admin.list_topics(timeout=ASK_S).topics
            break
        except KafkaException as error:
            admin.poll(0)  # Wrong credentials come to the error callback alone.
            watch.raise_if_refused()
            if not waiting:
                waiting = True
                log.info("Waiting for a broker at %s.", servers)
            if time.monotonic() > deadline:
                raise outside_error(
                    f"no broker at {servers} answered within {settings.start_timeout_s:g} s; "
                    "not starting. Check KAFKA_BOOTSTRAP_SERVERS and KAFKA_SECURITY_PROTOCOL",
                    error,
                ) from None
    needed = dict.fromkeys((settings.reads, *settings.writes))
    missing = [topic for topic in needed if topic not in topics]
    if missing:
        raise OutsideError(
            f"the broker at {servers} has no topic {' nor '.join(map(repr, missing))} (or this "
            "user may not see it); not starting. Create it, or name another by "
            "ODRADEK_INPUT_TOPIC, ODRADEK_OUTPUT_TOPIC or ODRADEK_DEAD_LETTER_TOPIC"
        )
    _check_rights(admin, settings)


def _check_rights(admin: AdminClient, settings: Settings) -> None:
    """Find out now what would otherwise hold the first turn, where the broker tells it.

    Raises:
        OutsideError: this user may not read what is read, or not write an output.
    """
    needed = [
        (settings.reads, AclOperation.READ),
        *((topic, AclOperation.WRITE) for topic in settings.writes),
    ]
    described = admin.describe_topics(
        TopicCollection([*dict(needed)]), include_authorized_operations=True, request_timeout=ASK_S
    )
    for topic, operation in needed:
        try:
            allowed = described[topic].result().authorized_operations
        except KafkaException as error:
            log.debug("The rights to %s are not told: %s", topic, error)
            continue
        if allowed and operation not in allowed:
            raise OutsideError(
                f"this user may not {operation.name.lower()} topic {topic}; not starting. Grant "
                f"it {operation.name} on that topic"
            )


def with_batch_bytes(kafka: ClientProperties, limits: Mapping[str, int]) -> ClientProperties:
    """Return the properties with batches that stay below the topics' limits, unless set by hand.

    A broker refuses a batch as a whole. With a topic that takes 100,000 bytes and the client's
    default of 1,000,000, every turn went record by record: 23 s for what takes 1.4 s.
    """
    if not limits or "batch.size" in kafka.producer:
        return kafka
    batch_bytes = max(1, min(1_000_000, int(BATCH_SHARE * min(limits.values()))))
    return kafka._replace(producer={**kafka.producer, "batch.size": batch_bytes})


def topic_limits(admin: AdminClient, topics: Collection[str]) -> dict[str, int]:
    """Return the bytes of the largest batch that each topic takes, of those that it is told of."""
    resources = [ConfigResource(ConfigResource.Type.TOPIC, topic) for topic in {*topics}]
    limits: dict[str, int] = {}
    for resource, config in admin.describe_configs(resources, request_timeout=ASK_S).items():
        try:
            limits[resource.name] = int(config.result()["max.message.bytes"].value)
        except (KafkaException, KeyError, ValueError):
            continue  # This user may not ask; the refusals will tell.
    return limits
