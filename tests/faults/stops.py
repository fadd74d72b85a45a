"""Stops under load: SIGTERM again and again, each timed, and none may repeat anything."""

from __future__ import annotations

import random
import time
from pathlib import Path

from tests.faults.faults import Site
from tests.faults.rounds import NEVER_S, a_site, a_stage
from tests.faults.terms import Terms

MOMENT_S = 1.0  # Stops fall anywhere within so long after the flow is steady.


def stop_often(terms: Terms, folder: Path, times: int) -> int:
    """Stop workers of a group under load so often; print the figures and return the exit code."""
    with a_stage(terms) as stage, a_site(stage, terms, folder) as site:
        late = stop_and_count(site, times, random.Random(terms.seed))
        balance = site.arena.close_the_books()
    seconds = sorted(stop.seconds for stop in site.stops)
    clean = sum(s.code == 0 and s.seconds <= terms.stop_timeout_s for s in site.stops)
    print(
        f"{clean} of {times} stops clean: exit 0 within {terms.stop_timeout_s:g} s; median "
        f"{seconds[len(seconds) // 2]:.2f} s, longest {seconds[-1]:.2f} s; flow steady again after "
        f"{late:.2f} s at worst; {balance.repeats} repeats"
    )
    print("\n".join(balance.lines()))
    return 0 if clean == times and balance.is_clean and not balance.repeats else 1


def stop_and_count(site: Site, times: int, rng: random.Random) -> float:
    """Stop a worker so often, each started again; return the worst recovery in seconds."""
    worst_s = 0.0
    for number in range(times):
        while (place := site.arena.group.pick(rng, ready=True)) is None:
            time.sleep(0.05)
        time.sleep(rng.uniform(0, MOMENT_S))  # A random point is what is being tried.
        stop = site.arena.group.stop(place)
        site.stops.append(stop)
        recovery_s = site.arena.recovery_s(time.monotonic(), NEVER_S)
        worst_s = max(worst_s, recovery_s)
        print(
            f"stop {number + 1:3}: exit {stop.code} in {stop.seconds:.2f} s, steady after "
            f"{recovery_s:.2f} s",
            flush=True,
        )
    return worst_s
