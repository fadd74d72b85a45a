"""Every contender side by side, on real Kafka: events per second and core, CPU and latency.

    python -m bench.compare [--events N] [--repeats N] [--only a,b] [--without a,b] [--no-latency]
                            [--quick] [--json FILE] [--plot FILE]

Programs read the same events (57 features, JSON of about 600 bytes unless their row says
otherwise), score them with the same sealed file, and write the same score record of each. One
after another, in an order that turns round from repeat to repeat. The frameworks run in
environments of their own (`bench.contenders.environments`), made at their first use. `raw
forward` is no contender but the ceiling: the bytes written back as they are, by the worker's own
clients and turns. Everything that anybody wrote is read back after each run: one output for every
event, keys unique, all scores right to 1e-4, all offsets committed; the notes below the table say
who commits nothing, or does not look whether its outputs were delivered. A contender that fails
is reported by name, and the others go on; if it is the worker, the exit code is 1.

All that work in batches share one module for reading events and writing records
(`bench.contenders.records`), with msgspec and numpy, and batches of 2,000: what a row shows is what
its framework or loop costs, not its JSON. The textbook loop works on one event at a time.

Rate. The events stand in the topic before a contender starts; each run has a new group and a new
output topic. The contender alone has one core, the broker and this program have the others. Slow
contenders have a shorter topic, raw forward a longer one: the table says how many. Events/s: the
outputs after the first append stamp of the broker, by the time from there to the last stamp. CPU:
that of the contender's process from its join to the last output. `own` is the least share of its
core that the contender had in any repeat, `others` the largest that anything else had of it (other
programs, the kernel's network, the hypervisor): where it is large, believe the CPU column and its
ratios rather than the events/s.

Latency. A producer of its own, beside the broker, sends 2,000 events/s; `bench.latency` says what
is timed and by which clock. Contenders with a batch wait of their own are told to wait 5 ms at
most for it, and 100 ms in a rate run: each measure as it suits them. Those whose latency has a
bar run three times in alternating order, the others once.

Limits. One partition, one broker without replicas, on the same machine and by loopback; no
compression; a small model with fixed weights, where 1 % of events are anomalous (the trainer's
default has two rows: as it comes out for these Gaussian events, and as it would for heavy tails;
`--preset best` is dearer, and not measured here). The fast ones drain the topic in a second or two.
On a shared or virtual machine the speeds vary by a third from run to run: the ratio within one run
of this program is worth more than any speed in it. With all contenders it takes half an hour: start
it in the background (nohup).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from bench import model, report
from bench.contender import JAVA_OPTIONS, ContenderFailed, Cores
from bench.contenders.entries import BY_KEY, QUICK_PACED, RAW, Entry, ModelName, chosen
from bench.contenders.environments import EnvironmentUnavailable, installed
from bench.course import Course
from bench.default_model import DEFAULT_MODELS, fit_default_model
from bench.findings import Findings
from bench.latency import (
    QUICK_SECONDS,
    QUICK_SETTLE_SECONDS,
    SECONDS,
    SETTLE_SECONDS,
    WARM_SECONDS,
)
from bench.plot import plot
from bench.report import say
from demo.broker import Broker, BrokerUnavailable

RESULTS = Path(__file__).parent / "results"
EVENTS, REPEATS, PACED_REPEATS = 200_000, 5, 3
QUICK_EVENTS, QUICK_REPEATS = 20_000, 1
EVENTS_MIN = 20_000


@dataclass(frozen=True)
class Plan:
    """What to measure."""

    entries: Sequence[Entry]
    paced: Sequence[Entry]  # Those of them whose latency is measured.
    events: int
    repeats: int
    paced_repeats: int  # Of those whose latency has a bar; the others run once.
    seconds: tuple[int, int]  # Of a latency run, and how many of them are not counted.
    warm_s: int  # At the steady rate, before any latency is measured.

    def events_of(self, entry: Entry) -> int:
        return max(EVENTS_MIN, int(self.events * entry.share))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the tables, write JSON and plot; return the exit code."""
    options, plan = _plan(arguments)
    cores = Cores.shared_out()
    found = Findings(plan.events, plan.repeats)
    try:
        measure(plan, found, cores)
    except BrokerUnavailable as error:
        say(str(error))
        return 3
    except ContenderFailed as error:
        say(f"No figures: {error}")
        return 1
    print(report.table(found))
    results = report.results(found, quick=options.quick, pinned=cores.contender is not None)
    out: Path = options.json or RESULTS / ("quick.json" if options.quick else "compare.json")
    report.write_json(out, results)
    if found.runs:
        (options.plot or out.with_suffix(".svg")).write_text(plot(found))
    return int(any(BY_KEY[key].ours for key in found.failures))


def measure(plan: Plan, found: Findings, cores: Cores) -> None:
    """Run every contender `plan.repeats` times, and at a steady rate; fill `found`.

    Raises:
        ContenderFailed: the warm-up failed, so nothing can be measured.
    """
    if cores.contender is None:
        say("There is one core: contender and broker share it, and the figures mean little.")
    os.sched_setaffinity(0, cores.harness)  # Before the broker starts, so that it inherits it.
    with tempfile.TemporaryDirectory() as folder, Broker(java_options=JAVA_OPTIONS) as broker:
        models: dict[ModelName, Path] = {
            "bench": Path(folder) / "bench.onnx",
            **{name: Path(folder) / f"{name}.onnx" for name in DEFAULT_MODELS},
        }
        models["bench"].write_bytes(model.sealed_model())
        for entry in plan.entries:
            if entry.model in DEFAULT_MODELS:
                say(f"Training the {entry.model} model.")
                fit = partial(fit_default_model, entry.model, models[entry.model])
                _attempt(entry, found, fit)
        course = Course(broker, models, cores, say)
        try:
            say("Warming up the broker.")
            course.rate(RAW, plan.events, -1)
            _run_all(plan, found, course)
        finally:
            course.close()
    for name in {e.environment for e in plan.entries if e.environment and found.of(e.key)}:
        found.environments[name] = installed(name)


def _run_all(plan: Plan, found: Findings, course: Course) -> None:
    def rate(entry: Entry, repeat: int) -> None:
        found.runs.append(course.rate(entry, plan.events_of(entry), repeat))
        say(report.line(found.runs[-1]))

    def latency(entry: Entry, repeat: int) -> None:
        found.latencies.append(course.latency(entry, repeat, *plan.seconds))
        say(report.latency_line(found.latencies[-1]))

    for repeat in range(plan.repeats):
        for entry in (plan.entries, plan.entries[::-1])[repeat % 2]:
            _attempt(entry, found, partial(rate, entry, repeat))
    if plan.paced and plan.warm_s:
        say("Warming up the broker at the steady rate.")
        course.latency(RAW, -1, plan.warm_s, 0)
    for repeat in range(plan.paced_repeats):
        entries = [entry for entry in plan.paced if entry.latency_bar or repeat == 0]
        for entry in (entries, entries[::-1])[repeat % 2]:
            _attempt(entry, found, partial(latency, entry, repeat))


def _attempt(entry: Entry, found: Findings, what: Callable[[], None]) -> None:
    """Do it, unless this contender has failed before; if it fails now, keep its reason."""
    if entry.key in found.failures:
        return
    try:
        what()
    except (ContenderFailed, EnvironmentUnavailable) as error:
        found.failures[entry.key] = str(error)
        say(f"{entry.name} failed, and is left out from now on: {error}")


def _plan(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, Plan]:
    parser = argparse.ArgumentParser(prog="python -m bench.compare", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--events", type=int, help=f"default {EVENTS:,}, or {QUICK_EVENTS:,}")
    parser.add_argument("--repeats", type=int, help=f"default {REPEATS}, or {QUICK_REPEATS}")
    keys = ", ".join(BY_KEY)
    parser.add_argument("--only", type=_names, default=[], help=f"contenders, of {keys}")
    parser.add_argument("--without", type=_names, default=[], help="contenders to leave out")
    parser.add_argument(
        "--latency",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="measure latencies too",
    )
    parser.add_argument("--quick", action="store_true", help="a self-check; its speeds mean little")
    parser.add_argument("--json", type=Path, help="where to write the results")
    parser.add_argument("--plot", type=Path, help="where to draw them; default beside the JSON")
    options = parser.parse_args(arguments)
    events = options.events or (QUICK_EVENTS if options.quick else EVENTS)
    repeats = options.repeats or (QUICK_REPEATS if options.quick else REPEATS)
    if events < EVENTS_MIN or repeats < 1:
        parser.error(
            f"wanted at least {EVENTS_MIN:,} events, which are a few batches, and 1 repeat"
        )
    if sys.platform != "linux":
        parser.error("CPU and cores are read from Linux's /proc; there is none here")
    try:
        entries = chosen(options.only, options.without, quick=options.quick)
    except ValueError as error:
        parser.error(str(error))
    paced = [entry for entry in entries if options.latency]
    if options.quick:
        entries = [replace(entry, share=1.0) for entry in entries]
        paced = [entry for entry in paced if entry.key in QUICK_PACED]
        paced_repeats, seconds, warm_s = 1, (QUICK_SECONDS, QUICK_SETTLE_SECONDS), 0
    else:
        paced_repeats, seconds, warm_s = PACED_REPEATS, (SECONDS, SETTLE_SECONDS), WARM_SECONDS
    return options, Plan(entries, paced, events, repeats, paced_repeats, seconds, warm_s)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


if __name__ == "__main__":
    sys.exit(main())
