"""A fixed slice of the soak: each kind of fault, and books that balance.

`make soak` deals the same faults at random for as long as asked.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from demo.broker import install
from tests.faults.cluster import Cluster, or_skip
from tests.faults.faults import BY_NAME, Site
from tests.faults.losing_a_node import NODE_LIMIT_S, lose_a_node
from tests.faults.rounds import a_site, deal
from tests.faults.stall import GROWTH_MIB_MAX, stalled
from tests.faults.stops import stop_and_count
from tests.faults.terms import Terms

pytestmark = pytest.mark.usefixtures("bare_environment")

SEED = 4
STOPS = 4
STALL_S = 8.0
# Recovery is measured by `make soak`; a shared machine that is busy may take its time here.
PATIENCE = 4.0


@contextmanager
def an_installation() -> Iterator[None]:
    install()
    yield


@pytest.fixture(autouse=True)
def _kafka_is_there() -> Iterator[None]:
    with or_skip(an_installation):
        yield


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with or_skip(Cluster) as cluster:
        yield cluster


def slice_of(names: list[str], terms: Terms, folder: Path, **more: str) -> Site:
    """Deal these faults, one after the other, and require that the books balance."""
    rng = random.Random(SEED)
    with a_site(terms, folder, more) as site:
        for name in names:
            result = deal(site, [BY_NAME[name]], rng)
            assert result.trouble is None, f"{result.line()}\n{site.arena.group.logs()[-4000:]}"
            assert result.recovery_s < PATIENCE * result.limit_s, result.line()
        balance = site.arena.close_the_books()
        print("\n".join(balance.lines()))
        assert balance.is_clean, balance.lines()
        assert all(stop.code == 0 for stop in site.stops), site.stops
        assert not site.arena.group.exits
        assert balance.sent > 500
    return site


WORKER_FAULTS = [name for name, fault in BY_NAME.items() if fault.target == "worker"]
BROKER_FAULTS = [name for name, fault in BY_NAME.items() if fault.target == "broker"]
NETWORK_FAULTS = [name for name, fault in BY_NAME.items() if fault.target == "network"]
TOPIC_FAULTS = [
    name for name, fault in BY_NAME.items() if fault.target == "topic" and not fault.destroys
]


def test_workers_that_die_stop_freeze_and_join_lose_nothing(tmp_path: Path):
    slice_of(WORKER_FAULTS, Terms(), tmp_path)


def test_the_newer_group_protocol_loses_nothing_either(tmp_path: Path):
    slice_of(["worker: SIGKILL", "worker: SIGTERM"], Terms(protocol="consumer"), tmp_path)


def test_a_broker_that_dies_restarts_and_freezes_costs_nothing(tmp_path: Path):
    slice_of(BROKER_FAULTS, Terms(workers=2), tmp_path)


def test_a_network_that_stalls_slows_drops_and_cuts_costs_nothing(tmp_path: Path):
    slice_of(NETWORK_FAULTS, Terms(workers=2), tmp_path)


def test_topics_that_grow_refuse_and_stall_cost_nothing(tmp_path: Path):
    slice_of(TOPIC_FAULTS, Terms(workers=2), tmp_path)


def test_records_that_are_destroyed_unread_are_counted_and_nothing_else_is_lost(tmp_path: Path):
    destroying = [name for name, fault in BY_NAME.items() if fault.destroys]
    slice_of(destroying, Terms(workers=2), tmp_path, ODRADEK_ON_GAP="jump")


def test_exactly_once_repeats_nothing_whatever_dies(tmp_path: Path):
    terms = Terms(delivery="exactly-once", workers=2)
    slice_of(["worker: SIGKILL", "worker: SIGTERM", "broker: SIGKILL"], terms, tmp_path)


def test_stops_under_load_are_clean(tmp_path: Path):
    with a_site(Terms(), tmp_path) as site:
        stop_and_count(site, STOPS, random.Random(SEED))
        balance = site.arena.close_the_books()
    assert [stop.code for stop in site.stops] == [0] * STOPS
    assert balance.is_clean, balance.lines()
    assert balance.repeats == 0


def test_memory_stays_bounded_while_no_output_is_taken(cluster: Cluster, tmp_path: Path):
    terms = Terms(workers=1, rate=800, session_s=10)
    curve, _, balance = stalled(cluster, terms, tmp_path, STALL_S, warm_s=1.0)
    print(curve.plot())
    assert curve.growth_mib < GROWTH_MIB_MAX
    assert balance.is_clean, balance.lines()
    assert balance.repeats == 0


def test_a_cluster_that_loses_one_of_three_brokers_loses_no_event(cluster: Cluster, tmp_path: Path):
    terms = Terms(workers=2, session_s=6)
    cluster.restart(3)  # Whoever was here before may have killed it.
    recoveries, balance = lose_a_node(cluster, terms, tmp_path)
    assert max(recoveries) < PATIENCE * NODE_LIMIT_S
    assert balance.is_clean, balance.lines()
