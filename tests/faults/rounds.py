"""Rounds: one or several faults at once, then steady flow again before the next.

A round knows what each of its faults may cause; whatever else is seen is a miss.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from confluent_kafka import KafkaException

from demo.broker import Broker
from demo.kafka_wire import free_port
from tests.faults.arena import an_arena
from tests.faults.entries import Blow
from tests.faults.faults import FAULTS, Fault, Site
from tests.faults.loading import GROUP_LOG
from tests.faults.proxy import Proxy, properties_behind
from tests.faults.terms import REBALANCE_S, Terms

NEVER_S = 60.0  # A flow that is not steady again by then will not be.
# How many faults a round has; those on the same target exclude each other.
SIZES = (1, 1, 1, 2, 2, 3)
# Which targets may be hit at once: a broker that is away cannot be told to change a topic.
APART = ({"broker", "topic"}, {"network", "topic"})


class Stage(NamedTuple):
    """A broker, and the network between it and the workers: for one site after another."""

    broker: Broker
    proxy: Proxy


@contextmanager
def a_stage(terms: Terms) -> Iterator[Stage]:
    with Proxy(free_port()) as proxy:
        properties = {**terms.broker_properties(), **properties_behind(proxy)}
        with Broker(properties=properties, java_options=(GROUP_LOG,)) as broker:
            yield Stage(broker, proxy)


@contextmanager
def a_site(
    stage: Stage, terms: Terms, folder: Path, more: Mapping[str, str] | None = None
) -> Iterator[Site]:
    """Workers under load on this stage, with topics of their own."""
    settings = {"KAFKA_BOOTSTRAP_SERVERS": stage.proxy.address, **(more or {})}
    with an_arena(stage.broker, terms, folder, settings) as arena:
        arena.start()
        yield Site(arena, *stage)


@dataclass(frozen=True)
class Round:
    """What came of a round."""

    names: tuple[str, ...]
    lasted_s: float
    recovery_s: float
    limit_s: float
    repeats: int
    expelled: int
    load: float  # Of the machine, over the last minute.
    trouble: str | None = None
    false_starts: int = 0  # Of the broker: see `tests.faults.loading`.

    @property
    def is_late(self) -> bool:
        return self.recovery_s > self.limit_s

    def line(self) -> str:
        words = [
            f"{' + '.join(self.names):<62} lasted {self.lasted_s:4.1f} s",
            f"steady after {self.recovery_s:4.1f} s (limit {self.limit_s:.0f})",
            *([f"{self.repeats} repeats"] if self.repeats else []),
            *([f"{self.expelled} expelled"] if self.expelled else []),
            # A machine that does other things as well is late for reasons of its own.
            *([f"LATE at load {self.load:.1f}"] if self.is_late else []),
            *([f"TROUBLE: {self.trouble}"] if self.trouble else []),
            *([f"{self.false_starts} false starts"] if self.false_starts else []),
        ]
        return ", ".join(words)


@dataclass
class Drawer:
    """Draws rounds from a seed: every fault comes once before any comes twice."""

    rng: random.Random
    allowed: Sequence[Fault] = FAULTS
    _bag: list[Fault] = field(default_factory=list)

    def draw(self) -> list[Fault]:
        chosen: list[Fault] = []
        for _ in range(self.rng.choice(SIZES)):
            if not self._bag:
                self._bag = self.rng.sample(list(self.allowed), len(self.allowed))
            fit = next((fault for fault in self._bag if _goes_with(fault, chosen)), None)
            if fit is None:
                break
            self._bag.remove(fit)
            chosen.append(fit)
        return chosen


def _goes_with(fault: Fault, others: Sequence[Fault]) -> bool:
    return all(
        fault.target != other.target
        and {fault.target, other.target} not in APART
        and not fault.destroys
        and not other.destroys
        for other in others
    )


def deal(site: Site, faults: Sequence[Fault], rng: random.Random) -> Round:
    """Do all of this at once, wait until the flow is steady again, and enter it in the books."""
    arena = site.arena
    committed = arena.committed(15)
    expelled_before, false_starts_before = arena.group.expulsions(), site.false_starts
    with arena.clerk.books() as ledger:
        repeats_before = ledger.repeats
    began_ms, began = time.time() * 1000, time.monotonic()
    trouble: str | None = None
    with ThreadPoolExecutor(len(faults)) as hands:
        acts = [hands.submit(f.act, site, random.Random(rng.random())) for f in faults]
    well_at = began
    for act in acts:
        if (error := act.exception()) is not None:
            if not isinstance(error, KafkaException | TimeoutError | OSError):
                raise error
            trouble = f"the fault itself failed: {error}"
        else:
            well_at = max(well_at, act.result())
    try:
        recovery_s = arena.recovery_s(well_at, NEVER_S)
    except TimeoutError as never:
        recovery_s, trouble = NEVER_S, f"{trouble}; {never}" if trouble else str(never)
    expelled = arena.group.expulsions() - expelled_before
    # What an expelled worker repeats comes when it has joined again, steady as the flow may look.
    over_ms = time.time() * 1000 + (1000 * REBALANCE_S if expelled else 0)
    for fault in faults:
        arena.dealt(
            Blow(
                fault.name,
                int(began_ms),
                int(over_ms),
                {} if fault.name == "topic: deleted and made again" else committed,
                fault.interrupts or expelled > 0,
                # One that is expelled goes on until it is told: librdkafka keeps its commits, and
                # the news, behind the rebalance that expels it.
                None if expelled else arena.terms.batch_max,
            )
        )
    with arena.clerk.books() as ledger:
        repeats = ledger.repeats - repeats_before
    # Together they may add up: a worker that dies with its broker is missed once it is back.
    limit_s = sum(fault.limit_s(arena.terms) for fault in faults)
    false_starts = site.false_starts - false_starts_before
    if false_starts:  # It was away for longer than the sessions.
        limit_s += arena.terms.death_limit_s
    return Round(
        tuple(fault.name for fault in faults),
        time.monotonic() - began,
        recovery_s,
        limit_s,
        repeats,
        expelled,
        os.getloadavg()[0],
        trouble,
        false_starts,
    )
