"""The results of a benchmark as tables for people and as JSON for programs."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import confluent_kafka
import onnxruntime

from bench.contenders.entries import BY_KEY, ENTRIES, Entry
from bench.findings import TEXTBOOK, WORKER, Findings, Run, Spread, raw_of
from bench.latency import P50, P99, P999, Latency, Quantiles
from demo.broker import KAFKA_VERSION

_RATE_COLUMNS = (
    f"{'':32}{'events':>8}{'events/s/core':>29}{'CPU us/event':>22}"
    f"{'x textbook':>14}{'x raw':>14}{'peak MiB':>10}{'own':>6}{'others':>8}"
)
_LATENCY_COLUMNS = (
    f"{'':32}{'runs':>5}{'p50':>20}{'p99':>22}{'p99.9':>22}{'highest':>9}"
    f"{'x raw p50':>12}{'p99':>7}{'own core':>10}{'late p99.9':>12}{'highest':>9}"
)


def say(text: str) -> None:
    """Tell people how it goes; the tables have standard output for themselves."""
    print(text, file=sys.stderr, flush=True)


def write_json(out: Path, found: object) -> None:
    """Write results for programs, into a folder that is made if need be."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found, indent=2) + "\n")


def line(run: Run) -> str:
    return (
        f"{run.repeat + 1}. {BY_KEY[run.contender].name:30}{run.events_per_s:>10,.0f} events/s"
        f"{run.cpu_us_per_event:>9.2f} us CPU/event"
    )


def latency_line(latency: Latency) -> str:
    found = latency.read_ms
    return (
        f"At {latency.rate_per_s:,.0f}/s {BY_KEY[latency.contender].name:30}"
        f"p50 {found.p50:.2f} ms, p99 {found.p99:.2f} ms"
    )


def table(found: Findings) -> str:
    """Return the results for people."""
    lines = [
        "",
        f"Repeats in alternating order: {found.repeats}; median (lowest-highest).",
        "x: times the events/s | the events per CPU second of the textbook loop, of raw forward.",
        _RATE_COLUMNS,
    ]
    notes = []
    for entry in ENTRIES:
        runs = found.of(entry.key)
        if reason := found.failures.get(entry.key):
            notes.append(f"{entry.name} FAILED: {reason.splitlines()[0]}")
        if not runs:
            continue
        lines.append(
            f"{entry.name:32}{runs[0].events:>8,}{found.rates(entry.key).text(',.0f'):>29}"
            f"{found.costs(entry.key).text('.2f'):>22}"
            f"{_both(found, entry.key, TEXTBOOK):>14}{_both(found, entry.key, raw_of(entry)):>14}"
            f"{max(run.peak_mib for run in runs):>10.0f}"
            f"{min(run.spent.own_share for run in runs):>6.0%}"
            f"{max(run.spent.others_share for run in runs):>8.0%}"
        )
        notes += [f"{entry.name} {caveat}." for caveat in entry.caveats]
    for above, below in found.compared():
        rate, cost = found.by_rate(above, below), found.by_cost(above, below)
        assert rate is not None
        assert cost is not None
        lines.append(
            f"{BY_KEY[above].name} / {BY_KEY[below].name}: {rate.text('.2f')} x the events/s, "
            f"{cost.text('.2f')} x by CPU per event"
        )
    stages = ", ".join(f"{stage} {cost:.2f}" for stage, cost in found.stages().items())
    if stages:
        lines.append(f"{BY_KEY[WORKER].name}, CPU us/event of its own thread by stage: {stages}")
    return "\n".join([*lines, *_latency_table(found), "", *notes])


def results(found: Findings, *, quick: bool, pinned: bool) -> dict[str, object]:
    """Return the results for programs."""
    ran = [entry for entry in ENTRIES if found.of(entry.key)]
    return {
        "machine": {**machine(), "pinned": pinned},
        "measured_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "quick": quick,
        "events": found.events,
        "repeats": found.repeats,
        "contenders": {
            entry.key: {
                "name": entry.name,
                "events": found.of(entry.key)[0].events,
                "events_per_s": asdict(found.rates(entry.key)),
                "cpu_us_per_event": asdict(found.costs(entry.key)),
                "peak_mib": max(run.peak_mib for run in found.of(entry.key)),
                "commits": entry.commits,
                "caveats": list(entry.caveats),
            }
            for entry in ran
        },
        "ratios": [
            {
                "of": above,
                "to": below,
                "events_per_s": _values(found.by_rate(above, below)),
                "per_cpu_s": _values(found.by_cost(above, below)),
            }
            for above, below in found.ratios()
        ],
        "best_committing_framework": found.best_framework(),
        "failures": found.failures,
        "latencies": [asdict(latency) for latency in found.latencies],
        "stages_us_per_event": found.stages(),
        "environments": found.environments,
        "runs": [asdict(run) for run in found.runs],
    }


def _latency_table(found: Findings) -> list[str]:
    if not found.latencies:
        return []
    lines = [
        "",
        "Latency in ms at 2,000 events/s from due to read, median (lowest-highest) of the runs.",
        "x raw: median of the ratios to raw forward; late: how late the producer was at most.",
        _LATENCY_COLUMNS,
    ]
    for entry in ENTRIES:
        runs = found.latencies_of(entry.key)
        if not runs:
            continue
        read = [one.read_ms for one in runs]
        p50, p99, p999 = (
            Spread.of([what(one) for one in read]).text(".2f") for what in (P50, P99, P999)
        )
        lines.append(
            f"{entry.name:32}{len(runs):>5}{p50:>20}{p99:>22}{p999:>22}"
            f"{max(one.highest for one in read):>9.2f}"
            f"{_latency_ratio(found, entry, P50):>12}{_latency_ratio(found, entry, P99):>7}"
            f"{max(one.spent.own_share for one in runs):>10.0%}"
            f"{max(one.late_ms.p999 for one in runs):>12.2f}"
            f"{max(one.late_ms.highest for one in runs):>9.2f}"
        )
    if found.latencies_of(WORKER):
        for name, what in (("p50", P50), ("p99", P99)):
            names = [BY_KEY[key].name for key in found.ahead(what)]
            lines.append(f"Ahead of the worker at {name}: {', '.join(names) or 'nobody'}.")
    return lines


def _latency_ratio(found: Findings, entry: Entry, what: Callable[[Quantiles], float]) -> str:
    ratio = found.by_latency(entry.key, raw_of(entry), what)
    return f"{ratio.median:.2f}" if ratio else "-"


def _both(found: Findings, above: str, below: str) -> str:
    rate, cost = found.by_rate(above, below), found.by_cost(above, below)
    return f"{rate.median:.2f} | {cost.median:.2f}" if rate and cost else "-"


def _values(spread: Spread | None) -> dict[str, float] | None:
    return asdict(spread) if spread else None


def machine() -> dict[str, object]:
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
        "compiled_scanner": find_spec("worker._scanner") is not None,
        **{name: version(name) for name in ("confluent-kafka", "msgspec", "numpy")},
    }
