"""An output that takes nothing for a minute while the input goes on: memory must stay bounded.

Of three brokers one is dead, and the output topics want three replicas in sync: every write is
answered by NOT_ENOUGH_REPLICAS, which librdkafka tries again for ever. One broker alone cannot do
this: Kafka wants no more replicas in sync than a topic has.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from tests.faults.arena import Arena, an_arena
from tests.faults.cluster import Cluster
from tests.faults.entries import Balance
from tests.faults.rounds import NEVER_S
from tests.faults.terms import Terms

MIB = 1024 * 1024
GROWTH_MIB_MAX = 64.0
# The bound of the consumer's queue, `queued.max.messages.kbytes`; 64 MiB by default.
QUEUE_KBYTES = 4096
RATE = 2000.0
PADDING_BYTES = 1000  # So that 120 MiB arrive in a minute: far beyond what may grow.
SAMPLE_S = 1.0
WARM_S = 10.0  # Allocators settle first: growth counts from the flow under way.


@dataclass(frozen=True)
class Curve:
    """Resident memory of one worker over time, the bound of its queue, and what came meanwhile."""

    seconds: tuple[float, ...]
    mib: tuple[float, ...]
    before_mib: float
    queue_mib: float
    arrived_mib: float

    @property
    def growth_mib(self) -> float:
        """How much memory grew beyond its stated queues."""
        return max(self.mib) - self.before_mib - self.queue_mib

    def plot(self, rows: int = 10, width: int = 60) -> str:
        """Draw the curve in text."""
        low, high = min(self.before_mib, *self.mib), max(self.mib)
        step = max((high - low) / rows, 0.1)
        picked = [self.mib[i * len(self.mib) // width] for i in range(min(width, len(self.mib)))]
        picked = picked if len(self.mib) > width else list(self.mib)
        lines = [
            f"{low + row * step:8.1f} MiB |"
            + "".join("#" if value >= low + row * step else " " for value in picked)
            for row in reversed(range(rows + 1))
        ]
        axis = f"{'':12} +{'-' * len(picked)}\n{'':13}0 s{'':{max(1, len(picked) - 8)}}"
        return "\n".join(lines) + f"\n{axis}{self.seconds[-1]:.0f} s"


def stall(terms: Terms, folder: Path, seconds: float) -> int:
    """Stall the outputs so long; print curve, growth and balance, and return the exit code."""
    terms = replace(terms, workers=1, rate=RATE, session_s=10.0)
    with Cluster(terms.broker_properties()) as cluster:
        curve, recovery_s, balance = stalled(cluster, terms, folder, seconds)
    print(curve.plot())
    print(
        f"{seconds:g} s without output while {curve.arrived_mib:.0f} MiB arrived: "
        f"{curve.before_mib:.1f} MiB before, {max(curve.mib):.1f} MiB at most, a growth of "
        f"{max(curve.mib) - curve.before_mib:+.1f} MiB in all (limit {GROWTH_MIB_MAX:g} beyond the "
        f"stated queue of {curve.queue_mib:.0f}); steady {recovery_s:.1f} s after; "
        f"{balance.repeats} repeats"
    )
    print("\n".join(balance.lines()))
    fits = curve.growth_mib < GROWTH_MIB_MAX
    return 0 if fits and balance.is_clean and not balance.repeats else 1


def stalled(
    cluster: Cluster, terms: Terms, folder: Path, seconds: float, *, warm_s: float = WARM_S
) -> tuple[Curve, float, Balance]:
    """Run one worker under load, let its outputs take nothing for so long, and close the books."""
    settings = {"KAFKA_CONSUMER_QUEUED_MAX_MESSAGES_KBYTES": str(QUEUE_KBYTES)}
    with an_arena(cluster, terms, folder, settings) as arena:
        arena.sender.padding_bytes = PADDING_BYTES
        arena.start()
        cluster.kill(max(cluster.brokers))
        time.sleep(warm_s)
        arena.recovery_s(time.monotonic(), NEVER_S)
        curve = _curve(arena, seconds)
        recovery_s = arena.recovery_s(time.monotonic(), NEVER_S)
        return curve, recovery_s, arena.close_the_books()


def _curve(arena: Arena, seconds: float) -> Curve:
    pid = arena.group.pid(0)
    before, sent_before = resident_mib(pid), arena.sender.number
    outputs = arena.topics[1:]
    arena.alter(outputs, {"min.insync.replicas": "3"})
    try:
        times, values = zip(*_sampled(lambda: resident_mib(pid), seconds), strict=True)
        with arena.clerk.books() as ledger:
            waiting = ledger.waiting
    finally:
        arena.alter(outputs, {"min.insync.replicas": "2"})
    arrived = arena.sender.number - sent_before
    assert waiting > arrived / 2, f"{waiting} of {arrived} waited: it was no stall"
    return Curve(times, values, before, QUEUE_KBYTES / 1024, arrived * PADDING_BYTES / MIB)


def resident_mib(pid: int) -> float:
    """The resident memory of a process, as the kernel counts it."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB


def _sampled(ask: Callable[[], float], seconds: float) -> list[tuple[float, float]]:
    started = time.monotonic()
    samples = [(0.0, ask())]
    clock = threading.Event()
    while samples[-1][0] < seconds:
        clock.wait(SAMPLE_S)
        samples.append((time.monotonic() - started, ask()))
    return samples
