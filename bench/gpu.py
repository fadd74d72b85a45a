"""Where a GPU pays: batches through the worker's own `Model.score`, on the CPU and on CUDA.

    python -m bench.gpu [--quick] [--features D ...] [--allow-cpu-only] [--json FILE]

For networks of 10 thousand to 30 million parameters over 57, 512 and 4,096 features, and batches of
1 to 4,096 rows: the time from a matrix in host memory to all three outputs in host memory, copies
and padding included, on one thread, on all cores, on CUDA, and on CUDA with graphs. Every batch's
scores must be those of the CPU within the contract's tolerance, or the program ends with 1. TF32
is off. Nothing else of a turn is in these figures: `bench.sizes` says what a free score would gain.

p99 is the highest of the repeats where there are fewer than 100 of them. `crossing` is the smallest
batch from which on every measured one is faster on CUDA.

Without a GPU that works it ends with 3 and says why; with `--allow-cpu-only` it measures the CPU.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from bench.model import normal_events, sealed_model
from bench.report import say
from bench.sizes import Size, sizes
from schemas.calibration import Floats
from worker.model import Model, ModelOptions, open_model
from worker.session import CudaFailed, CudaOptions, Gpu, NoGpu, cuda_session

RESULTS = Path(__file__).parent / "results" / "gpu.json"
FEATURES = (57, 512, 4096)
BATCHES = (1, 16, 64, 256, 1024, 4096)
QUICK_PARAMETERS_MAX, QUICK_BATCHES = 40_000, (1, 64)
ONE, ALL, CUDA, GRAPHS = "cpu, 1 thread", "cpu, all cores", "cuda", "cuda, graphs"
REPEATS_MIN, REPEATS_MAX = 3, 2000
REPEAT_S = 1.0
SEED = 12


class ScoresDiffer(Exception):
    """CUDA and the CPU do not agree: there is nothing to compare."""


@dataclass(frozen=True)
class Timing:
    """Batches of one size through one network at one place; microseconds of wall time a batch."""

    widths: tuple[int, ...]
    parameters: int
    place: str
    rows: int
    repeats: int
    p50_us: float
    p99_us: float

    @property
    def events_per_s(self) -> float:
        return self.rows / self.p50_us * 1e6


def measure(
    size: Size, places: Iterable[tuple[str, Model]], batches: Sequence[int], repeat_s: float
) -> list[Timing]:
    """Measure one network, opened at each place; the first says what the scores are.

    Raises:
        ScoresDiffer: between places, beyond the contract's tolerance.
    """
    rows = normal_events(max(batches), SEED, size.features).astype(np.float32)
    found: list[Timing] = []
    wanted: list[Floats] = []
    for place, model in places:
        for number, count in enumerate(batches):
            batch = rows[:count]
            scores = model.score(batch).scores
            if len(wanted) == number:
                wanted.append(scores)
            if wrong := model.contract.score_tolerance.differ(wanted[number], scores).sum():
                raise ScoresDiffer(f"{size.widths} on {place}: {wrong} of {count} scores differ")
            times_us = np.array(_times_s(model, batch, repeat_s)) * 1e6
            p50, p99 = np.percentile(times_us, (50, 99), method="higher")
            found.append(
                Timing(size.widths, size.parameters, place, count, len(times_us), p50, p99)
            )
    return found


def opened_everywhere(sealed: bytes, batch_max: int, *, cuda: bool) -> Iterator[tuple[str, Model]]:
    """Open a model at each place, the CPU's single thread first; one after another."""
    cores = _cores()
    for place, threads in ((ONE, 1), (ALL, cores))[: 1 + (cores > 1)]:
        yield place, open_model(sealed, ModelOptions("cpu", threads, batch_max))
    if not cuda:
        return
    for place, graph in ((CUDA, False), (GRAPHS, True)):
        opened: list[CudaOptions] = []

        def open_session(
            sealed: bytes, options: CudaOptions, opened: list[CudaOptions] = opened
        ) -> object:
            opened.append(options)
            return cuda_session(sealed, options)

        options = ModelOptions("cuda", 1, batch_max, cuda=CudaOptions(8_000, graph=graph))
        model = open_model(sealed, options, Gpu(open_session))
        if opened[-1].graph == graph:  # Or graphs could not be had, which the log has told.
            yield place, model


def _times_s(model: Model, batch: Floats, repeat_s: float) -> list[float]:
    """Return the times of as many runs as fit into `repeat_s`, within bounds."""
    times: list[float] = []
    while len(times) < REPEATS_MIN or (sum(times) < repeat_s and len(times) < REPEATS_MAX):
        started = time.perf_counter()
        model.score(batch)
        times.append(time.perf_counter() - started)
    return times


def table(timings: Sequence[Timing]) -> str:
    """Return the timings as a table in Markdown, a row for each network and batch."""
    places = list(dict.fromkeys(timing.place for timing in timings))
    lines = [
        "| network | parameters | rows |"
        + "".join(f" {place}: events/s | p50, p99 us |" for place in places),
        "| --- | ---: | ---: |" + " ---: | ---: |" * len(places),
    ]
    by_place = {(t.widths, t.rows, t.place): t for t in timings}
    for widths, parameters, rows in dict.fromkeys(
        (t.widths, t.parameters, t.rows) for t in timings
    ):
        cells = ""
        for place in places:
            timing = by_place.get((widths, rows, place))
            cells += (
                f" {timing.events_per_s:,.0f} | {timing.p50_us:,.0f}, {timing.p99_us:,.0f} |"
                if timing
                else " - | - |"
            )
        lines.append(f"| {'-'.join(map(str, widths))} | {parameters:,} | {rows:,} |{cells}")
    return "\n".join(lines)


def crossings(timings: Sequence[Timing]) -> list[str]:
    """Say for each network from which batch on CUDA is faster than the CPU."""
    lines = []
    for widths, parameters in dict.fromkeys((t.widths, t.parameters) for t in timings):
        own = {(t.place, t.rows): t.p50_us for t in timings if t.widths == widths}
        batches = sorted({rows for _, rows in own})
        places = {place for place, _ in own}
        gpu = [place for place in (CUDA, GRAPHS) if place in places]
        for cpu in (place for place in (ONE, ALL) if gpu and place in places):
            since = None
            for rows in reversed(batches):
                if min(own[place, rows] for place in gpu) >= own[cpu, rows]:
                    break
                since = rows
            told = "at no batch" if since is None else f"from {since:,} rows on"
            lines.append(
                f"crossing: {widths[0]:,} features, {parameters:,} parameters: CUDA is faster than "
                f"{cpu} {told}"
            )
    return lines


def card() -> str:
    """Return the GPU's name, driver and memory, as its own tool tells them."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        told = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return "a GPU whose name nvidia-smi does not tell"
    return told.splitlines()[0]


def why_no_cuda() -> str | None:
    """Open a small model on CUDA, and return why that cannot be."""
    try:
        Gpu().open(sealed_model(), CudaOptions())
    except (NoGpu, CudaFailed) as error:
        return str(error)
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table and the crossings, and write the JSON; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--quick", action="store_true", help="a self-check; its times mean little")
    parser.add_argument("--features", type=int, nargs="+", choices=FEATURES, default=FEATURES)
    parser.add_argument("--allow-cpu-only", action="store_true", help="measure without a GPU too")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where to write the results")
    chosen = parser.parse_args(arguments)
    why = why_no_cuda()
    name = None if why else card()
    if why:
        say(f"No GPU: {why}.")
        if not chosen.allow_cpu_only:
            say("Nothing is measured. --allow-cpu-only measures the CPU alone.")
            return 3
    print(f"GPU: {name or 'none was found; these are the figures of the CPU alone'}")
    print(f"CPU: {_cores()} cores")
    features, most = ((57,), QUICK_PARAMETERS_MAX) if chosen.quick else (chosen.features, 10**9)
    batches, repeat_s = (QUICK_BATCHES, 0.02) if chosen.quick else (BATCHES, REPEAT_S)
    timings: list[Timing] = []
    for size in sizes(features, most):
        say(f"{size.features:,} features, {size.parameters:,} parameters")
        places = opened_everywhere(sealed_model(size.widths), max(batches), cuda=why is None)
        try:
            timings += measure(size, places, batches, repeat_s)
        except ScoresDiffer as error:
            say(f"No figures: {error}")
            return 1
    print(table(timings), *crossings(timings), sep="\n")
    found = {
        "gpu": name,
        "cores": _cores(),
        "quick": chosen.quick,
        "timings": [{**asdict(t), "events_per_s": t.events_per_s} for t in timings],
    }
    chosen.json.parent.mkdir(parents=True, exist_ok=True)
    chosen.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


if __name__ == "__main__":
    sys.exit(main())
