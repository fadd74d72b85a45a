"""A fixed slice of the soak: each kind of fault, and books that balance.

`make soak` deals the same faults at random for as long as asked.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from demo.kafka_wire import answers
from tests.components import or_skip
from tests.faults.cluster import Cluster
from tests.faults.faults import BY_NAME, Site
from tests.faults.losing_a_node import NODE_LIMIT_S, lose_a_node
from tests.faults.rounds import Stage, a_site, a_stage, deal
from tests.faults.stall import GROWTH_MIB_MAX, stalled
from tests.faults.stops import stop_and_count
from tests.faults.terms import Terms

pytestmark = pytest.mark.usefixtures("bare_environment")

SEED = 4
STOPS = 3
STALL_S = 5.0
# Recovery is measured by `make soak`; a shared machine that is busy may take its time here.
PATIENCE = 4.0
# Short sessions, for a short slice: a broker that starts slowly may expel workers by them.
TERMS = Terms(workers=2, session_s=4.0, transaction_timeout_s=4.0)


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with or_skip(lambda: a_stage(TERMS)) as stage:
        yield stage


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with or_skip(lambda: Cluster(TERMS.broker_properties())) as cluster:
        yield cluster
    assert not any(answers(broker.ports[0]) for broker in cluster.brokers.values())
    assert not any(broker.folder.exists() for broker in cluster.brokers.values())


def deal_all(site: Site, *names: str) -> None:
    """Deal these faults, one after the other, and require that the books balance."""
    rng = random.Random(SEED)
    for name in names:
        result = deal(site, [BY_NAME[name]], rng)
        print(result.line())
        assert result.trouble is None, f"{result.line()}\n{site.arena.group.logs()[-4000:]}"
        assert result.recovery_s < PATIENCE * result.limit_s, result.line()
    balance = site.arena.close_the_books()
    print("\n".join(balance.lines()))
    assert balance.is_clean, balance.lines()
    assert all(stop.code == 0 for stop in site.stops), site.stops
    assert not site.arena.group.exits
    assert balance.sent > 500


def faults_of(*targets: str) -> list[str]:
    return [name for name, fault in BY_NAME.items() if fault.target in targets]


def test_workers_that_die_stop_freeze_and_join_lose_nothing(stage: Stage, tmp_path: Path):
    with a_site(stage, TERMS, tmp_path) as site:
        stop_and_count(site, STOPS, random.Random(SEED))
        with site.arena.clerk.books() as ledger:
            assert ledger.repeats == 0, "a stop in order repeats nothing"
        deal_all(site, *faults_of("worker"))


def test_brokers_networks_and_topics_that_fail_lose_nothing(stage: Stage, tmp_path: Path):
    """What a deletion destroys before it is read is counted, and everything else is answered.

    A topic that is made again after its broker has restarted begins in an older epoch than it had.
    """
    with a_site(stage, TERMS, tmp_path, {"ODRADEK_ON_GAP": "jump"}) as site:
        deal_all(site, *faults_of("network", "broker", "topic"))


def test_the_newer_group_protocol_loses_nothing_either(stage: Stage, tmp_path: Path):
    with a_site(stage, replace(TERMS, protocol="consumer"), tmp_path) as site:
        deal_all(site, "worker: SIGKILL", "worker: SIGTERM")


def test_exactly_once_repeats_nothing_whatever_dies(stage: Stage, tmp_path: Path):
    with a_site(stage, replace(TERMS, delivery="exactly-once"), tmp_path) as site:
        deal_all(site, "worker: SIGKILL", "worker: SIGTERM", "broker: SIGKILL", "network: cut")


def test_a_cluster_that_loses_one_of_three_brokers_loses_no_event(cluster: Cluster, tmp_path: Path):
    recoveries, balance = lose_a_node(cluster, TERMS, tmp_path)
    assert max(recoveries) < PATIENCE * NODE_LIMIT_S
    assert balance.is_clean, balance.lines()


def test_memory_stays_bounded_while_no_output_is_taken(cluster: Cluster, tmp_path: Path):
    terms = replace(TERMS, workers=1, rate=800.0, session_s=10.0)
    curve, _, balance = stalled(cluster, terms, tmp_path, STALL_S, warm_s=1.0)
    print(curve.plot())
    assert curve.growth_mib < GROWTH_MIB_MAX
    assert balance.is_clean, balance.lines()
    assert balance.repeats == 0
