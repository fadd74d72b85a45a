"""What wider events and larger networks cost: CPU per event by stage, threads, and batches.

    python -m bench.sizes [--quick] [--features D ...] [--json FILE]

For events of 8 to 4,096 features and networks of 10 thousand to 30 million parameters: those whose
first layer has at least 16 units and at most 256 for each feature. The stages are the worker's own
functions (`Decoder.decode`, `Model.score`, `to_results`), over JSON events as the other benchmarks
have them, in turns as the worker has them: 4,096 records, or as many as 64 MiB hold. No broker:
reading and writing add what `bench.stages` says.

CPU of decode, score and encode is that of the calling thread, with one thread for onnxruntime; the
median of the repeats, of which a slow network has two. With more threads, wall time and the CPU of
all of them. `enough` is the smallest batch whose cost per event is within a quarter of the full
batch's. `free score` is what a turn would gain if scoring cost nothing: no GPU can give more.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from bench.model import WIDTHS, normal_events, sealed_model
from schemas.calibration import Floats
from schemas.event import EventLayout
from schemas.write_event import encode_event
from worker.model import Model, ModelOptions, open_model
from worker.results import to_results
from worker.turn import Records

RESULTS = Path(__file__).parent / "results" / "sizes.json"
FEATURES = (8, 57, 512, 4096)
PARAMETERS = (10_000, 100_000, 1_000_000, 10_000_000, 30_000_000)
QUICK_PARAMETERS_MAX = 100_000
NARROWEST = 16  # Units of the first layer.
UNITS_PER_FEATURE_MAX = 256
TURN_RECORDS_MAX = 4096
TURN_BYTES_MAX = 64 * 1024 * 1024  # The consumer's queued.max.messages.kbytes.
BATCHES = (1, 16, 64, 256, 1024)
ENOUGH = 1.25
LARGE, WIDE = 1_000_000, 57  # Parameters, features: what is fixed for each event counts little.
REPEAT_S = 0.3
TOP_FEATURES = 5
SEED = 11


@dataclass(frozen=True)
class Size:
    """A network, by the widths of its layers; the first is the event's."""

    widths: tuple[int, ...]

    @property
    def features(self) -> int:
        return self.widths[0]

    @property
    def parameters(self) -> int:
        return sum((a + 1) * b for a, b in zip(self.widths, self.widths[1:], strict=False))


@dataclass(frozen=True)
class Cost:
    """What one event costs, in microseconds.

    `score_us_by_batch`: CPU, one thread. `threads`: number -> wall time and CPU of the full batch.
    """

    widths: tuple[int, ...]
    parameters: int
    event_bytes: int
    turn_records: int
    decode_us: float
    score_us: float
    encode_us: float
    score_us_by_batch: dict[int, float]
    threads: dict[int, tuple[float, float]]

    @property
    def total_us(self) -> float:
        return self.decode_us + self.score_us + self.encode_us

    @property
    def score_share(self) -> float:
        """The model's share of the three stages."""
        return self.score_us / self.total_us

    @property
    def free_score(self) -> float:
        """How many times faster the three stages would be if scoring cost nothing."""
        return self.total_us / (self.decode_us + self.encode_us)

    @property
    def enough_rows(self) -> int:
        """The smallest batch that scores nearly as cheaply as the full one."""
        near = [rows for rows, us in self.score_us_by_batch.items() if us <= ENOUGH * self.score_us]
        return min(near, default=self.turn_records)

    def with_threads(self, threads: int) -> float:
        """How many times faster a turn's three stages are with so many threads, by the wall."""
        one, many = self.threads[1][0], self.threads[threads][0]
        rest = self.decode_us + self.encode_us
        return (rest + one) / (rest + many)


def sizes(features: Sequence[int] = FEATURES, parameters_max: int = PARAMETERS[-1]) -> list[Size]:
    """Return the networks to measure, and among those of 57 features the one of the speed bars."""
    found = []
    for d in features:
        of_d = [Size(WIDTHS)] if d == WIDTHS[0] else []
        for parameters in PARAMETERS:
            # d-h-h/4-h-d has about 2 h (d + h/4) parameters.
            h = round(2 * ((d * d + parameters / 2) ** 0.5 - d))
            if NARROWEST <= h <= UNITS_PER_FEATURE_MAX * d and parameters <= parameters_max:
                of_d.append(Size((d, h, max(1, h // 4), h, d)))
        found += sorted(of_d, key=lambda size: size.parameters)
    return found


def measure(size: Size, threads: Sequence[int]) -> Cost:
    """Measure one network over one turn of events."""
    sealed = sealed_model(size.widths)
    model = _open(sealed, 1)
    records = _records(size.features)
    batch = model.decoder.decode(records)
    scored = model.score(batch.features)
    turn = len(records)
    by_batch = {
        rows: _score_us(model, batch.features[:rows], time.thread_time)
        for rows in BATCHES
        if rows < turn
    }
    return Cost(
        size.widths,
        size.parameters,
        len(records.values[0] or b""),
        turn,
        _us(lambda: model.decoder.decode(records), turn, time.thread_time),
        _score_us(model, batch.features, time.thread_time),
        _us(
            lambda: to_results(records, batch, scored, model, TOP_FEATURES), turn, time.thread_time
        ),
        by_batch,
        {n: _threaded(sealed, n, batch.features) for n in threads},
    )


def _threaded(sealed: bytes, threads: int, features: Floats) -> tuple[float, float]:
    """Return wall time and CPU in microseconds per event."""
    model = _open(sealed, threads)
    cpu = time.process_time()
    walls: list[float] = []
    wall = _score_us(model, features, time.perf_counter, walls)
    return wall, (time.process_time() - cpu) / (len(walls) * len(features)) * 1e6


def _open(sealed: bytes, threads: int) -> Model:
    return open_model(sealed, ModelOptions(provider="cpu", threads=threads, batch_max=64))


def _records(features: int) -> Records:
    layout = EventLayout()
    row_bytes = len(_event(layout, 0, normal_events(1, SEED, features).tolist()[0]))
    count = min(TURN_RECORDS_MAX, TURN_BYTES_MAX // row_bytes)
    rows = normal_events(count, SEED, features).tolist()
    values: list[bytes | None] = [_event(layout, number, row) for number, row in enumerate(rows)]
    keys: list[bytes | None] = [f"e-{number:07}".encode() for number in range(count)]
    places = list(range(count))
    return Records("events", [0] * count, places, places, keys, values, [None] * count)


def _event(layout: EventLayout, number: int, row: list[float]) -> bytes:
    return encode_event(
        layout, (), event_id=f"e-{number:07}", timestamp_ms=1_767_225_600_000, features=row
    )


def _score_us(
    model: Model, features: Floats, clock: Callable[[], float], seen: list[float] | None = None
) -> float:
    return _us(lambda: model.score(features), len(features), clock, seen)


def _us(
    work: Callable[[], object],
    events: int,
    clock: Callable[[], float],
    seen: list[float] | None = None,
) -> float:
    """Return the median microseconds per event; all repeats go into `seen`, in seconds.

    Nothing is warmed up here: the model is, and every stage has run once before it is timed.
    """
    seen = [] if seen is None else seen
    while len(seen) < 2 or sum(seen) < REPEAT_S:
        started = clock()
        work()
        seen.append(clock() - started)
    return median(seen) / events * 1e6


def table(costs: Sequence[Cost]) -> str:
    """Return the costs as a table in Markdown."""
    threads = sorted(costs[0].threads)[1:]
    more = "".join(f" {n} threads: wall, CPU us; turn |" for n in threads)
    head = "| network | parameters | event bytes | turn | decode us | score us | encode us "
    lines = [
        f"{head}| model's share | free score | enough |{more}",
        "| --- |" + " ---: |" * (9 + len(threads)),
    ]
    for cost in costs:
        more = "".join(
            f" {wall:.3g}, {cpu:.3g}; {cost.with_threads(n):.2f}x |"
            for n, (wall, cpu) in cost.threads.items()
            if n > 1
        )
        lines.append(
            f"| {'-'.join(map(str, cost.widths))} | {cost.parameters:,} | {cost.event_bytes:,} "
            f"| {cost.turn_records:,} | {cost.decode_us:.3g} | {cost.score_us:.3g} "
            f"| {cost.encode_us:.3g} | {cost.score_share:.0%} | {cost.free_score:.3g}x "
            f"| {cost.enough_rows:,} |{more}"
        )
    return "\n".join(lines)


def findings(costs: Sequence[Cost]) -> Iterator[str]:
    """Say what the costs come to: by parameter and feature, then for each number of features."""
    yield ""
    large = [cost for cost in costs if cost.parameters >= LARGE]
    wide = [cost for cost in costs if cost.widths[0] >= WIDE]
    if large and wide:
        per_million = median(cost.score_us / cost.parameters * 1e6 for cost in large)
        per_feature = median(cost.decode_us / cost.widths[0] for cost in wide)
        yield (
            f"Scoring takes {per_million:.3g} us for each million parameters, decoding "
            f"{per_feature * 1000:.3g} ns for each feature: equal at "
            f"{per_feature / per_million * 1e6:,.0f} parameters a feature."
        )
    for d in sorted({cost.widths[0] for cost in costs}):
        own = sorted((cost for cost in costs if cost.widths[0] == d), key=lambda c: c.parameters)
        half = _first(own, lambda cost: cost.score_share > 0.5)
        line = f"{d:,} features: the model is the larger half {half}"
        for n in sorted(own[0].threads)[1:]:
            pays = _first(own, lambda cost, n=n: cost.with_threads(n) > (n + 1) / 2)  # type: ignore[misc]
            line += f"; {n} threads make a turn more than {(n + 1) / 2:g} times as fast {pays}"
        yield line + "."


def _first(costs: Sequence[Cost], which: Callable[[Cost], bool]) -> str:
    """Say from which network on all are such."""
    found = "for none of these"
    for cost in reversed(costs):
        if not which(cost):
            break
        found = f"from {cost.parameters:,} parameters on"
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table and what it comes to, and write the JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.sizes", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--quick", action="store_true", help="the small networks, as a self-check")
    parser.add_argument("--features", type=int, nargs="+", choices=FEATURES, default=FEATURES)
    parser.add_argument("--json", type=Path, default=RESULTS, help="where to write the results")
    chosen = parser.parse_args(arguments)
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    threads = [n for n in (1, 2, 4, 8, 16, 32, 64) if n <= cores]
    largest = QUICK_PARAMETERS_MAX if chosen.quick else PARAMETERS[-1]
    costs = []
    for size in sizes(chosen.features, largest):
        print(f"{size.features:,} features, {size.parameters:,} parameters", file=sys.stderr)
        costs.append(measure(size, threads))
    print(table(costs), *findings(costs), sep="\n")
    chosen.json.parent.mkdir(parents=True, exist_ok=True)
    found = {"cores": cores, "quick": chosen.quick, "costs": [asdict(cost) for cost in costs]}
    chosen.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
