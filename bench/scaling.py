"""What a topic needs: workers, partitions, bandwidth, memory, cost, and how far it falls behind.

    python -m bench.scaling [--write]                the figures of docs/scaling.md, into the page
    python -m bench.scaling --measure [--events N]   one and two workers on a real broker

The first form is arithmetic on `MEASURED`, and simulations (`bench.lag`) with eight seeds, their
medians; it takes half a minute and prints the same anywhere. The second has real processes share a
backlog (`bench.share`).
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from statistics import median

from bench.contender import JAVA_OPTIONS
from bench.lag import Bursts, Group, History, Scaler, simulate
from bench.share import measure
from demo.broker import Broker, BrokerUnavailable
from demo.worker_process import WorkerFailed

PAGE = Path(__file__).resolve().parents[1] / "docs" / "scaling.md"


@dataclass(frozen=True)
class Worker:
    """One worker on one core: what it does, reads, writes and takes."""

    events_per_s: int
    cpu_us_per_event: float
    event_bytes: int
    score_bytes: int
    memory_mib: int


# python -m bench.scaling --measure, one worker on 8 partitions: 57 features, the model of the speed
# bars, at least once; and python -m bench.memory. Rounded to the worse side.
MEASURED = Worker(
    events_per_s=190_000, cpu_us_per_event=5.0, event_bytes=606, score_bytes=348, memory_mib=130
)
EVENTS_PER_S = 1_000_000
USE_MAX = 0.6  # Of what the workers can do, at the mean load.
REPLICAS = 3
PRICE_PER_CORE_HOUR = 0.04  # An assumption, in any currency.

# The simulations: four hours of a load that takes ten workers' time on average, bursts included,
# with other bursts for each seed. Only the ratio of the load to a worker's speed matters, so that
# speed is a unit.
RATE = 100_000.0
MEAN_WORKERS = 10
HOURS, TICK_S, SEEDS = 4, 1.0, range(1, 9)
LOAD = Bursts(
    MEAN_WORKERS * RATE, swing=0.3, swing_period_s=HOURS * 3600, factor=2.0, burst_s=30, pause_s=600
)
PARTITIONS = 60
FIXED = Group(PARTITIONS, 20, RATE)

_LAG = ("p50 s", "p99 s", "longest s", "behind for s")  # Medians over the seeds.


@cache
def play(group: Group) -> Sequence[History]:
    """Simulate the load on the group, once for each seed."""
    ticks = round(HOURS * 3600 / TICK_S)
    return [simulate(group, LOAD.rates(ticks, TICK_S, seed), TICK_S) for seed in SEEDS]


def budget(worker: Worker = MEASURED) -> str:
    """Return what the topic needs, as a table."""
    used_cores = EVENTS_PER_S * worker.cpu_us_per_event / 1e6
    least = EVENTS_PER_S / (worker.events_per_s * USE_MAX)
    workers = next(n for n in range(1, PARTITIONS + 1) if n >= least and PARTITIONS % n == 0)
    read_mb, written_mb = (
        EVENTS_PER_S * size / 1e6 for size in (worker.event_bytes, worker.score_bytes)
    )
    cost_a_day = 24 * workers * PRICE_PER_CORE_HOUR
    rows = [
        ("partitions", f"{PARTITIONS}"),
        (f"workers, a core each, at most {USE_MAX:.0%} used at the mean load", f"{workers}"),
        ("cores busy at the mean load", f"{used_cores:.1f}"),
        ("read from the brokers by the workers", f"{read_mb:,.0f} MB/s"),
        ("written to the brokers by the workers", f"{written_mb:,.0f} MB/s"),
        (
            f"written by the brokers, {REPLICAS} replicas of events and scores",
            f"{REPLICAS * (read_mb + written_mb):,.0f} MB/s",
        ),
        ("memory of the workers", f"{workers * worker.memory_mib / 1024:.1f} GiB"),
        ("core-hours a day, reserved", f"{24 * workers:,}"),
        ("core-hours a day, used", f"{24 * used_cores:,.0f}"),
        (f"cost a day, if a core-hour costs {PRICE_PER_CORE_HOUR:.2f}", f"{cost_a_day:,.2f}"),
        ("the same for 10^9 events", f"{cost_a_day / 86_400 / EVENTS_PER_S * 1e9:.2f}"),
    ]
    return _table([f"a topic of {EVENTS_PER_S:,} events/s", "needs"], rows)


def headroom() -> str:
    """Return how far evenly loaded workers fall behind, by how much of them the mean load uses."""
    rows = []
    for workers in (11, 12, 14, 15, 17, 20, 25):
        histories = play(replace(FIXED, partitions=2 * workers, workers=workers))
        rows.append((f"{workers}", f"{MEAN_WORKERS / workers:.0%}", *_lag(histories)))
    return _table(["workers", "used at the mean", *_LAG], rows)


def divides() -> str:
    """Return what becomes of a number of workers that does not divide that of the partitions."""
    rows = []
    for workers in (14, 15, 16, 20, 30, 90):
        most = math.ceil(PARTITIONS / workers)
        histories = play(replace(FIXED, workers=workers))
        rows.append((f"{workers}", f"{most}", f"{PARTITIONS / most:.3g}", *_lag(histories)))
    return _table(["workers", "partitions of the busiest", "as good as", *_LAG], rows)


def uneven() -> str:
    """Return what one hot partition does, by its share of the load; 20 workers."""
    rows = []
    for partitions in (PARTITIONS, 2 * PARTITIONS):
        for hot in (1 / partitions, 0.04, 0.06, 0.08):
            shares = (hot, *[(1 - hot) / (partitions - 1)] * (partitions - 1))
            histories = play(replace(FIXED, partitions=partitions, shares=shares))
            of_one = sum(shares[: partitions // FIXED.workers]) * MEAN_WORKERS
            rows.append((f"{partitions}", f"{hot:.1%}", f"{of_one:.0%}", *_lag(histories)))
    return _table(["partitions", "the hottest has", "its worker is used", *_LAG], rows)


def autoscaling() -> str:
    """Return what an autoscaler on lag makes of the same load."""
    rows = [
        (f"{workers}, fixed", "none", *_scaled(play(replace(FIXED, workers=workers))))
        for workers in (15, 20)
    ]
    for least, behind_s in ((2, 10), (12, 10), (15, 10), (15, 2)):
        scaler = Scaler(behind_s * RATE, least, PARTITIONS)
        histories = play(replace(FIXED, workers=least, scaler=scaler))
        rows.append((f"{least} to {PARTITIONS}", f"{behind_s} s", *_scaled(histories)))
    head = ["workers", "target: lag per worker", "p99 s", "longest s"]
    return _table([*head, "core-hours a day", "changes a day"], rows)


PARTS = {
    "budget": budget,
    "headroom": headroom,
    "divides": divides,
    "uneven": uneven,
    "autoscaling": autoscaling,
}


def _lag(histories: Sequence[History]) -> tuple[str, ...]:
    return (
        _median(histories, lambda history: history.age(50)),
        _median(histories, lambda history: history.age(99)),
        _median(histories, lambda history: float(history.age_s.max())),
        _median(histories, lambda history: history.late_s),
    )


def _scaled(histories: Sequence[History]) -> tuple[str, ...]:
    days = HOURS / 24
    return (
        _median(histories, lambda history: history.age(99)),
        _median(histories, lambda history: float(history.age_s.max())),
        _median(histories, lambda history: history.worker_hours / days),
        _median(histories, lambda history: history.changes / days),
    )


def _median(histories: Sequence[History], what: Callable[[History], float]) -> str:
    return f"{median(map(what, histories)):.0f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(cells)} |" for cells in (head, *rows)]
    return "\n".join([lines[0], f"| --- |{' ---: |' * (len(head) - 1)}", *lines[1:]])


def written_into(page: str) -> str:
    """Return the page with every part between its marks as it is computed now."""
    for name, part in PARTS.items():
        begin, end = f"<!-- {name}: begin -->\n", f"\n<!-- {name}: end -->"
        before, found, rest = page.partition(begin)
        _, closed, after = rest.partition(end)
        if not (found and closed):
            raise ValueError(f"the page has no part {name!r} between its marks")
        page = before + begin + part() + end + after
    return page


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the page's figures, or measure; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.scaling", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--write", action="store_true", help="write the figures into the page")
    parser.add_argument("--measure", action="store_true", help="one and two workers on a broker")
    parser.add_argument("--events", type=int, default=800_000, help="of the measured backlog")
    chosen = parser.parse_args(arguments)
    if chosen.measure:
        try:
            with Broker(java_options=JAVA_OPTIONS) as broker:
                print(measure(broker, chosen.events))
        except (BrokerUnavailable, WorkerFailed) as error:
            print(error, file=sys.stderr)
            return 3 if isinstance(error, BrokerUnavailable) else 1
    elif chosen.write:
        PAGE.write_text(written_into(PAGE.read_text()))
    else:
        print("\n\n".join(f"{name}\n{part()}" for name, part in PARTS.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
