"""What came of a benchmark: its runs, and the table and the JSON that are made of them."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median

import confluent_kafka
import onnxruntime

from bench.contender import Spent
from demo.broker import KAFKA_VERSION

TEXTBOOK, WORKER, ONCE, RAW = NAMES = (
    "textbook loop",
    "odradek-worker",
    "exactly once",
    "raw forward",
)


@dataclass(frozen=True)
class Run:
    """One contender, once through the topic."""

    contender: str
    events_per_s: float
    cpu_us_per_event: float
    spent: Spent
    stages_us_per_event: dict[str, float] = field(default_factory=dict)


def line(repeat: int, run: Run) -> str:
    return (
        f"{repeat + 1}. {run.contender:16}{run.events_per_s:>10,.0f} events/s"
        f"{run.cpu_us_per_event:>9.2f} us CPU/event"
    )


def table(runs: Sequence[Run], events: int) -> str:
    """Return the results for people."""
    repeats = len(runs) // len(NAMES)
    lines = [
        "",
        f"{events:,} events, repeats in alternating order: {repeats}; median (lowest - highest)",
        f"{'':16}{'events/s':>30}{'CPU us/event':>26}{'own core':>10}{'others':>8}",
    ]
    for name in NAMES:
        own = _of(runs, name)
        speed = _spread([run.events_per_s for run in own], ",.0f")
        cost = _spread([run.cpu_us_per_event for run in own], ".2f")
        own_share = median(run.spent.own_share for run in own)
        others = max(run.spent.others_share for run in own)
        lines.append(f"{name:16}{speed:>30}{cost:>26}{own_share:>10.0%}{others:>8.0%}")
    lines.append("")
    for above, below in ((WORKER, TEXTBOOK), (WORKER, RAW), (ONCE, WORKER)):
        speeds = _spread(_ratios(runs, above, below, lambda run: run.events_per_s), ".2f")
        costs = _spread(_ratios(runs, below, above, lambda run: run.cpu_us_per_event), ".2f")
        lines.append(f"{above} / {below}: {speeds} x the events/s, {costs} x by CPU per event")
    stages = ", ".join(f"{stage} {cost:.2f}" for stage, cost in _stages(runs).items())
    lines.append(f"{WORKER}, wall us/event by its own metrics: {stages or 'unknown'}")
    return "\n".join(lines)


def results(runs: Sequence[Run], events: int, *, quick: bool, pinned: bool) -> dict[str, object]:
    """Return the results for programs."""
    return {
        "machine": {**_machine(), "pinned": pinned},
        "measured_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "quick": quick,
        "events": events,
        "repeats": len(runs) // len(NAMES),
        "medians": {
            name: {
                "events_per_s": median(run.events_per_s for run in _of(runs, name)),
                "cpu_us_per_event": median(run.cpu_us_per_event for run in _of(runs, name)),
            }
            for name in NAMES
        },
        "ratio_to_textbook": {
            "events_per_s": median(_ratios(runs, WORKER, TEXTBOOK, lambda run: run.events_per_s)),
            "cpu": median(_ratios(runs, TEXTBOOK, WORKER, lambda run: run.cpu_us_per_event)),
        },
        "stages_us_per_event": _stages(runs),
        "runs": [asdict(run) for run in runs],
    }


def _machine() -> dict[str, object]:
    """Describe the machine, without its name and without paths."""
    cpu_info = Path("/proc/cpuinfo").read_text().splitlines()
    models = {line.partition(": ")[2] for line in cpu_info if line.startswith("model name")}
    return {
        "processor": ", ".join(sorted(models)) or platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "python": platform.python_version(),
        "kafka": KAFKA_VERSION,
        "librdkafka": confluent_kafka.libversion()[0],
        "onnxruntime": onnxruntime.__version__,
        **{name: version(name) for name in ("confluent-kafka", "msgspec", "numpy")},
    }


def _of(runs: Sequence[Run], name: str) -> list[Run]:
    return [run for run in runs if run.contender == name]


def _ratios(
    runs: Sequence[Run], above: str, below: str, what: Callable[[Run], float]
) -> list[float]:
    """Return the ratio of each repeat: its runs are neighbours in time."""
    pairs = zip(_of(runs, above), _of(runs, below), strict=True)
    return [what(a) / what(b) for a, b in pairs]


def _stages(runs: Sequence[Run]) -> dict[str, float]:
    known = [costs for run in _of(runs, WORKER) if (costs := run.stages_us_per_event)]
    return {s: median(costs[s] for costs in known) for s in (known[0] if known else ())}


def _spread(values: Sequence[float], form: str) -> str:
    return f"{median(values):{form}} ({min(values):{form}} - {max(values):{form}})"
