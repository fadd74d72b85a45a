"""The faults: each a small function that does harm, heals it, and says from when on all is well.

A fault returns the moment, in monotonic seconds, from which recovery counts: the death of a worker,
the return of a broker, the healing of a network. All are drawn from one seed.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import NewPartitions

from demo.broker import Broker
from tests.faults import loading
from tests.faults.arena import OUTPUT_BYTES_MAX, Arena
from tests.faults.clerk import ends_of
from tests.faults.group import Stop
from tests.faults.proxy import Direction, Proxy
from tests.faults.terms import METADATA_S, REBALANCE_S, Terms

BROKER_LIMIT_S = 3.0  # The flow is steady so soon after a broker's return.
PARTITIONS_MAX = 10
TRY_S = 20.0
# Below any output, and above what ends a transaction: with 64 Kafka 4.3 refused its own markers
# ("Received fatal error RecordTooLargeException while sending txn marker"), and the transactions
# were never ended.
MARKER_BYTES = 100


@dataclass
class Site:
    """What a fault can get its hands on."""

    arena: Arena
    broker: Broker
    proxy: Proxy
    stops: list[Stop] = field(default_factory=list)
    false_starts: int = 0  # Of the broker.


Act = Callable[[Site, random.Random], float]


@dataclass(frozen=True)
class Fault:
    """Harm of one kind. `interrupts` says whether turns may be cut off by it, and so repeated."""

    name: str
    target: str  # What it is done to; two faults of one target never meet.
    act: Act
    interrupts: bool
    limit_s: Callable[[Terms], float]
    destroys: bool = False


def _pause(rng: random.Random, low_s: float, high_s: float) -> None:
    """Let a fault last: its length is what is being tried."""
    time.sleep(rng.uniform(low_s, high_s))


# Workers


def kill_worker(site: Site, rng: random.Random) -> float:
    if (place := site.arena.group.pick(rng)) is not None:
        site.arena.group.kill(place)
    return time.monotonic()


def stop_worker(site: Site, rng: random.Random) -> float:
    if (place := site.arena.group.pick(rng, ready=True)) is not None:
        site.stops.append(site.arena.group.stop(place))
    return time.monotonic()


def freeze_worker(site: Site, rng: random.Random) -> float:
    """Past its session: the group goes on without it, and it must notice."""
    if (place := site.arena.group.pick(rng)) is not None:
        site.arena.group.freeze(place)
        time.sleep(site.arena.terms.session_s + rng.uniform(0.5, 1.5))
        site.arena.group.thaw(place)
    return time.monotonic()


def hiccup_worker(site: Site, rng: random.Random) -> float:
    """Within its session: nobody must notice."""
    if (place := site.arena.group.pick(rng)) is not None:
        site.arena.group.freeze(place)
        _pause(rng, 0.2, 0.3 * site.arena.terms.session_s)
        site.arena.group.thaw(place)
    return time.monotonic()


def join_and_leave(site: Site, rng: random.Random) -> float:
    """One more worker for a while: it stops in order, wherever it is by then."""
    place = site.arena.group.add()
    site.arena.group.wait_for(place)
    _pause(rng, 0.0, 1.0)
    site.stops.append(site.arena.group.stop(place, again=False))
    return time.monotonic()


# The broker


def kill_broker(site: Site, rng: random.Random) -> float:
    site.broker.kill()
    _pause(rng, 0.0, 1.0)
    site.false_starts += loading.start(site.broker, site.proxy)
    return time.monotonic()


def restart_broker(site: Site, _: random.Random) -> float:
    site.broker.stop()
    site.false_starts += loading.start(site.broker, site.proxy)
    return time.monotonic()


def freeze_broker(site: Site, rng: random.Random) -> float:
    """Past the workers' sessions, which run out the moment it goes on."""
    site.broker.pause()
    time.sleep(site.arena.terms.session_s + rng.uniform(0.5, 1.5))
    site.broker.resume()
    return time.monotonic()


def hiccup_broker(site: Site, rng: random.Random) -> float:
    site.broker.pause()
    _pause(rng, 0.3, 0.3 * site.arena.terms.session_s)
    site.broker.resume()
    return time.monotonic()


# The network between workers and broker


def slow_network(site: Site, rng: random.Random) -> float:
    site.proxy.delay(rng.uniform(0.02, 0.2))
    return _healed(site, rng, 0.5, 2.0)


def narrow_network(site: Site, rng: random.Random) -> float:
    site.proxy.limit(rng.uniform(50_000, 200_000))
    return _healed(site, rng, 0.5, 2.0)


def stall_network(site: Site, rng: random.Random) -> float:
    site.proxy.stall(*rng.choice([(), (Direction.TO_BROKER,), (Direction.TO_CLIENT,)]))
    return _healed(site, rng, 0.3, 0.5 * site.arena.terms.session_s)


def cut_network(site: Site, rng: random.Random) -> float:
    site.proxy.cut()
    return _healed(site, rng, 0.1, 0.5 * site.arena.terms.session_s)


def drop_connections(site: Site, rng: random.Random) -> float:
    """Connections break in the middle of a request or of an answer, a few times in a row."""
    for _ in range(rng.randrange(1, 4)):
        site.proxy.cut_after(rng.randrange(1, 30_000), rng.choice(list(Direction)))
        _pause(rng, 0.1, 0.6)
    site.proxy.heal()
    return time.monotonic()


def _healed(site: Site, rng: random.Random, low_s: float, high_s: float) -> float:
    _pause(rng, low_s, high_s)
    site.proxy.heal()
    return time.monotonic()


# Topics


def add_partition(site: Site, _: random.Random) -> float:
    arena = site.arena
    if arena.partitions < PARTITIONS_MAX:
        wanted = [NewPartitions(arena.topics[0], arena.partitions + 1)]
        admin = arena.admin()
        for done in admin.create_partitions(wanted).values():
            done.result(TRY_S)
        arena.partitions += 1
    return time.monotonic()


def oversize_outputs(site: Site, rng: random.Random) -> float:
    """Events whose outputs are beyond max.message.bytes as they come."""
    site.arena.sender.oversize = True
    _pause(rng, 0.1, 0.4)
    site.arena.sender.oversize = False
    return time.monotonic()


def refuse_output(site: Site, rng: random.Random) -> float:
    """Not even the smallest form of an output is taken: workers must hold, and come back."""
    site.arena.alter(site.arena.topics[1:], {"max.message.bytes": str(MARKER_BYTES)})
    try:
        _pause(rng, 0.5, 2.0)
    finally:
        site.arena.alter(site.arena.topics[1:], {"max.message.bytes": str(OUTPUT_BYTES_MAX)})
    return time.monotonic()


def delete_records(site: Site, rng: random.Random) -> float:
    """Retention passes a worker by: records go while their reader is cut off, and dies."""
    arena = site.arena
    site.proxy.cut()
    try:
        _pause(rng, 0.5, 1.0)
        kill_worker(site, rng)
        ends = ends_of(arena.servers, arena.topics[0])
        places = [TopicPartition(arena.topics[0], p, end) for p, end in ends.items()]
        admin = arena.admin()
        for done in admin.delete_records(places).values():
            done.result(TRY_S)
        with arena.clerk.books() as ledger:
            ledger.enter_deletion(ends, arena.committed())
    finally:
        site.proxy.heal()
    return time.monotonic()


def remake_input(site: Site, _: random.Random) -> float:
    """The input topic is deleted and made again; what was not read by then is destroyed."""
    arena = site.arena
    arena.sender.hold()
    with arena.clerk.books():
        pass  # The clerk has taken every report of the sender by the next round.
    time.sleep(0.1)
    committed = arena.committed()
    admin = arena.admin()
    for done in admin.delete_topics([arena.topics[0]]).values():
        done.result(TRY_S)
    with arena.clerk.books() as ledger:
        ledger.enter_new_incarnation(committed)
    deadline = time.monotonic() + TRY_S
    while True:
        try:
            site.broker.create_topics({arena.topics[0]: arena.partitions})
            break
        except KafkaException:  # It is still going.
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
    arena.sender.go_on(new_incarnation=True)
    return time.monotonic()


def _death(terms: Terms) -> float:
    return terms.death_limit_s


def _broker(_: Terms) -> float:
    return BROKER_LIMIT_S


def _death_and_gap(terms: Terms) -> float:
    """Whoever takes over asks what is still there, and in transactions commits that first."""
    return terms.death_limit_s + REBALANCE_S


def _growth(_: Terms) -> float:
    """Clients hear of partitions with their next look at the topic, and those of a group move in
    two rounds."""
    return METADATA_S + 2 * REBALANCE_S


def _held(_: Terms) -> float:
    return 10.0  # A worker that holds asks again by itself, after a while.


FAULTS = (
    Fault("worker: SIGKILL", "worker", kill_worker, True, _death),
    Fault("worker: SIGTERM", "worker", stop_worker, False, _broker),
    Fault("worker: frozen past its session", "worker", freeze_worker, True, _death),
    Fault("worker: frozen for a moment", "worker", hiccup_worker, False, _broker),
    Fault("worker: one more, then one less", "worker", join_and_leave, False, _broker),
    Fault("broker: SIGKILL", "broker", kill_broker, True, _broker),
    Fault("broker: restart", "broker", restart_broker, False, _broker),
    Fault("broker: frozen past the sessions", "broker", freeze_broker, True, _death),
    Fault("broker: frozen for a moment", "broker", hiccup_broker, False, _broker),
    Fault("network: slow", "network", slow_network, False, _broker),
    Fault("network: narrow", "network", narrow_network, False, _broker),
    Fault("network: stalled", "network", stall_network, False, _broker),
    Fault("network: cut", "network", cut_network, False, _broker),
    Fault("network: connections dropped", "network", drop_connections, False, _broker),
    Fault("topic: a partition more", "topic", add_partition, False, _growth),
    Fault("topic: outputs too large", "topic", oversize_outputs, False, _broker),
    # A held turn does not keep partitions from moving: whoever gets them reads its records again.
    Fault("topic: every output refused", "topic", refuse_output, True, _held),
    Fault(
        "topic: records deleted unread",
        "topic",
        delete_records,
        True,
        _death_and_gap,
        destroys=True,
    ),
    Fault("topic: deleted and made again", "topic", remake_input, True, _held, destroys=True),
)
BY_NAME = {fault.name: fault for fault in FAULTS}
