"""From `KAFKA_*` variables to the properties of the consumer and the producer.

`KAFKA_BOOTSTRAP_SERVERS` is `bootstrap.servers` of both clients; `KAFKA_CONSUMER_*` and
`KAFKA_PRODUCER_*` are for one of them. A value from a file: `KAFKA_SASL_PASSWORD_FILE`. Properties
that would break a promise are refused by name, unknown ones with the nearest name. Values are
never logged.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from schemas.errors import did_you_mean
from worker.kafka_client import Properties

log = logging.getLogger(__name__)

# What Kubernetes sets for every service of a namespace unless enableServiceLinks is false.
SERVICE_LINK = re.compile(r"_(SERVICE_(HOST|PORT)(_\w+)?|PORT(_\d+_(TCP|UDP)(_\w+)?)?)$")

# Set by us, each for the reason beside it.
_REFUSED = {
    "acks": "a score counts as written only when all replicas have it",
    "auto.offset.reset": "a gap must stop the worker, not be skipped silently",
    "delivery.report.only.error": "the worker relies on it to know what was delivered",
    "delivery.timeout.ms": "outputs wait for the broker as long as it takes",
    "enable.auto.commit": "offsets are committed only behind acknowledged outputs",
    "enable.auto.offset.store": "offsets are committed only behind acknowledged outputs",
    "enable.idempotence": "a retried write must not appear twice",
    "enable.partition.eof": "the worker does not ask for it",
    "group.id": "set ODRADEK_GROUP instead",
    "message.timeout.ms": "outputs wait for the broker as long as it takes",
    "queue.buffering.max.kbytes": "a turn must fit; ODRADEK_BATCH_MAX bounds it",
    "queue.buffering.max.messages": "a turn must fit; ODRADEK_BATCH_MAX bounds it",
    "request.required.acks": "a score counts as written only when all replicas have it",
    "retries": "outputs wait for the broker as long as it takes",
    "message.send.max.retries": "outputs wait for the broker as long as it takes",
    "auto.commit.enable": "offsets are committed only behind acknowledged outputs",
    "auto.commit.interval.ms": "offsets are committed only behind acknowledged outputs",
    "statistics.interval.ms": "readiness and lag come from it",
    "transactional.id": "it is made of the group and KAFKA_CONSUMER_GROUP_INSTANCE_ID",
}

# A worker that dies leaves its transaction open for so long, plus the broker's sweep (10 s); until
# then its successor waits for its offsets, and readers for what was written after it.
TRANSACTION_TIMEOUT_MS = 10_000
# The default begins anew with the bootstrap servers when no broker answers for a while. It forgets
# what waits for one: the first network cut then hung a transaction for ever (librdkafka 2.16).
# Without it, a client forgets all brokers for ever if one that was frozen answers that there are
# none: the statistics show that, and `worker.transactional_client` takes another.
TRANSACTION_RECOVERY = "none"
TRANSACTION_STATISTICS_MS = 500

# A rebalance waits so long for a member that is gone and has not been expired: with the default of
# 5 minutes a group stood still for as long after a broker's restart (Kafka 4.3 had forgotten the
# sessions). A worker polls many times a second.
MAX_POLL_INTERVAL_MS = 60_000

_STATISTICS_MS = 5_000

_DEFAULTS: Properties = {
    # The default backs off to 10 s, in which a session times out though the broker is back.
    "reconnect.backoff.max.ms": 1_000,
}
# The figures below are of `python -m bench.stages --of waits` on two shared cores: 152,600 events/s
# at 4.85 us of CPU with all as it is.
_CONSUMER_DEFAULTS: Properties = {
    **_DEFAULTS,
    # A few turns ahead. The default of 100,000 is no faster (155,100/s, 5.25 us), and costs memory.
    "queued.min.messages": 20_000,
    "queued.max.messages.kbytes": 65_536,  # Also the bound on a turn's bytes.
    # How long the fetcher sleeps when the queue is full: with the default of 1 s 26,900 events/s.
    "fetch.queue.backoff.ms": 2,
    "statistics.interval.ms": _STATISTICS_MS,
}
_PRODUCER_DEFAULTS: Properties = {
    **_DEFAULTS,
    # Cut short whenever a turn is settled, so that a quiet topic does not feel it. With 0 the
    # client's own threads cost twice as much (5.85 us in all), with 50 ms no less (4.70 us).
    "linger.ms": 5,
    "batch.num.messages": 100_000,  # A turn in one piece; by 10,000 at once 5.35 us.
    "partitioner": "murmur2_random",  # As Java's, so that keys stay where others expect them.
    # The topic's own limit decides, and its refusal leads to the smaller form of an output.
    "message.max.bytes": 64 * 1024 * 1024,
    # More than any turn can hold, since a turn is bounded by the consumer's queue.
    "queue.buffering.max.messages": 1_000_000,
    "queue.buffering.max.kbytes": 2_097_151,
    "statistics.interval.ms": _STATISTICS_MS,
}
_CONSUMER_FIXED: Properties = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "error",
}
_PRODUCER_FIXED: Properties = {
    "acks": "all",
    "enable.idempotence": True,
    "message.timeout.ms": 0,
    "delivery.report.only.error": True,
}
_COOPERATIVE = "cooperative-sticky"
# With group.protocol=consumer the broker has the say in these.
_OF_CLASSIC_GROUPS = (
    "group.protocol.type",
    "heartbeat.interval.ms",
    "partition.assignment.strategy",
    "session.timeout.ms",
)


class ClientProperties(NamedTuple):
    """The properties of the two clients, but for the group's name."""

    consumer: Properties
    producer: Properties


def kafka_properties(environment: Mapping[str, str]) -> tuple[ClientProperties, list[str]]:
    """Return both clients' properties, and what is wrong with the variables."""
    owners = _owners()
    problems: list[str] = []
    given: dict[str, Properties] = {"consumer": {}, "producer": {}}
    for variable in sorted(environment):
        if not variable.startswith("KAFKA_"):
            continue
        value = environment[variable]
        name, owner = _name(variable)
        if name.endswith(".file") and name.removesuffix(".file") in owners:
            name = name.removesuffix(".file")
            try:
                value = Path(value).read_text().rstrip("\n")
            except OSError as error:
                problems.append(f"{variable}: the file cannot be read ({error.strerror})")
                continue
        name = _with_underscores(name, owners)
        if name in _REFUSED:
            problems.append(f"{variable}: {name} is not yours to set: {_REFUSED[name]}")
        elif name == "partition.assignment.strategy" and value != _COOPERATIVE:
            problems.append(f"{variable}: only {_COOPERATIVE} is supported; seen {value!r}")
        elif name in owners:
            for client in _clients(owners[name], owner):
                given[client][name] = value
        elif SERVICE_LINK.search(variable):
            log.info("Ignored %s: Kubernetes sets it for a service of that name.", variable)
        else:
            problems.append(
                f"{variable}: librdkafka has no property {name!r}{did_you_mean(name, owners)}"
            )
    if not given["consumer"].get("bootstrap.servers"):
        problems.append("KAFKA_BOOTSTRAP_SERVERS is not set; wanted host:port of a broker")
    elif given["producer"].get("bootstrap.servers") != given["consumer"]["bootstrap.servers"]:
        problems.append("KAFKA_BOOTSTRAP_SERVERS: both clients must use one cluster")
    problems += _not_whole(given["consumer"], "max.poll.interval.ms")
    problems += _not_whole(given["consumer"], "session.timeout.ms")
    problems += _unfit_for_the_group(given["consumer"])
    consumer: Properties = {
        **_CONSUMER_DEFAULTS,
        "max.poll.interval.ms": max(MAX_POLL_INTERVAL_MS, _session_ms(given["consumer"])),
        **given["consumer"],
        **_CONSUMER_FIXED,
    }
    if is_classic(consumer):
        consumer["partition.assignment.strategy"] = _COOPERATIVE
    producer: Properties = {**_PRODUCER_DEFAULTS, **given["producer"], **_PRODUCER_FIXED}
    return ClientProperties(consumer, producer), problems


def _unfit_for_the_group(given: Properties) -> list[str]:
    protocol = given.get("group.protocol", "classic")
    if protocol not in ("classic", "consumer"):
        return [f"KAFKA_CONSUMER_GROUP_PROTOCOL: wanted classic or consumer; seen {protocol!r}"]
    if protocol == "classic":
        return []
    return [
        f"KAFKA_CONSUMER_{name.upper().replace('.', '_')}: with group.protocol=consumer, {name} is "
        "set at the broker (group.consumer.* there). Leave it out"
        for name in _OF_CLASSIC_GROUPS
        if name in given
    ]


def exactly_once(properties: ClientProperties) -> tuple[ClientProperties, list[str]]:
    """Return the properties of transactions, and what does not go with them."""
    problems: list[str] = []
    isolation = properties.consumer.get("isolation.level", "read_committed")
    if isolation != "read_committed":
        problems.append(
            f"KAFKA_ISOLATION_LEVEL={isolation}: exactly-once needs read_committed, or offsets of "
            "unfinished transactions would be taken for committed"
        )
    # A message may wait as long as its transaction, no longer; an aborted one is done again.
    producer = {n: v for n, v in properties.producer.items() if n != "message.timeout.ms"}
    producer.setdefault("transaction.timeout.ms", TRANSACTION_TIMEOUT_MS)
    producer.setdefault("metadata.recovery.strategy", TRANSACTION_RECOVERY)
    producer["statistics.interval.ms"] = TRANSACTION_STATISTICS_MS
    problems += _not_whole(producer, "transaction.timeout.ms")
    return ClientProperties(properties.consumer, producer), problems


def _session_ms(given: Properties) -> int:
    """Return the session that the client is given; the interval between polls is no shorter."""
    value = str(given.get("session.timeout.ms", ""))
    return int(value) if value.isdecimal() else 0


def is_classic(properties: Properties) -> bool:
    """Return whether a consumer uses the classic group protocol, not the newer one (KIP-848)."""
    return bool(properties.get("group.protocol", "classic") == "classic")


def session_text(properties: Properties) -> str:
    """Say for how long a member that does not answer keeps its partitions."""
    if not is_classic(properties):
        return "the session timeout that the broker sets for groups (45 s by default)"
    return f"{int(properties.get('session.timeout.ms', 45_000)) / 1000:g} s"


def _name(variable: str) -> tuple[str, str]:
    """Return the property that a variable names, and the client it is meant for."""
    match = re.fullmatch(r"KAFKA_(?:(CONSUMER|PRODUCER)_)?(.+)", variable)
    assert match is not None  # noqa: S101  # The caller looked at the prefix.
    owner, name = match.groups()
    return name.lower().replace("_", "."), (owner or "both").lower()


def _clients(owner: str, asked: str) -> tuple[str, ...]:
    both = ("consumer", "producer")
    wanted = both if asked == "both" else (asked,)
    return tuple(client for client in wanted if owner in ("both", client))


def _owners() -> dict[str, str]:
    """Return librdkafka's properties, and whose each is: consumer, producer or both."""
    text = Path(__file__).with_name("librdkafka_properties.txt").read_text()
    lines = (line.split() for line in text.splitlines() if not line.startswith("#"))
    return {name: owner for name, owner in lines}  # noqa: C416  # Pairs, said by name.


def _with_underscores(name: str, owners: Mapping[str, str]) -> str:
    """Return the property whose own name has underscores (ssl_ca) where dots were read."""
    if name in owners:
        return name
    return next((known for known in owners if known.replace("_", ".") == name), name)


def _not_whole(properties: Properties, name: str) -> list[str]:
    value = properties.get(name)
    if value is None or str(value).isdecimal():
        return []
    return [f"KAFKA_{name.upper().replace('.', '_')}: wanted a whole number; seen {value!r}"]
