"""Three brokers under load, of which one goes and comes back."""

from __future__ import annotations

import time
from pathlib import Path

from tests.faults.arena import Arena, an_arena
from tests.faults.cluster import Cluster
from tests.faults.entries import Balance, Blow
from tests.faults.terms import Terms

NEVER_S = 60.0
# A leader that dies is missed after broker.session.timeout.ms, and its partitions move; twice as
# long where it was the active controller too (see `cluster`).
NODE_LIMIT_S = 10.0


def lose_a_node(
    cluster: Cluster, terms: Terms, folder: Path, times: int = 1
) -> tuple[list[float], Balance]:
    """Kill a leader under load so often, each restarted once the flow is steady without it.

    Return how long the flow took each time, from the death, and the balance.
    """
    recoveries: list[float] = []
    with an_arena(cluster, terms, folder) as arena:
        arena.start()
        for _ in range(times):
            recoveries.append(_lose_the_leader(arena, cluster))
        balance = arena.close_the_books()
    return recoveries, balance


def _lose_the_leader(arena: Arena, cluster: Cluster) -> float:
    node = cluster.leader_of(arena.topics[0], 0)
    committed = arena.committed(15)
    began_ms = int(time.time() * 1000)
    cluster.kill(node)
    recovery_s = arena.recovery_s(time.monotonic(), NEVER_S)
    assert cluster.leader_of(arena.topics[0], 0) not in (node, -1)
    cluster.restart(node)
    cluster.wait_until_in_sync(*arena.topics)
    arena.recovery_s(time.monotonic(), NEVER_S)
    arena.dealt(
        Blow("one node of three: SIGKILL", began_ms, int(time.time() * 1000), committed, True)
    )
    return recovery_s
