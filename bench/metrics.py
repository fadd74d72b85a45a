"""What the metrics cost, in CPU of the worker's own thread: turns with and without take turns.

    python -m bench.metrics [--seconds S] [--json FILE]

In one process, the same turn is decoded, scored and judged again and again, bare, with all counts
but the sample's, and with those as well. The shares are what is added to the bare turn. Reading,
writing and librdkafka's threads are no part of it: they are half of a worker's CPU in full turns,
and nearly all of it in small ones, so that of the whole the shares are much smaller.
"""

from __future__ import annotations

import argparse
import gc
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from msgspec.structs import replace as replaced

from bench import model
from bench.load import all_messages
from bench.report import machine, write_json
from trainer.reference import drift_reference
from trainer.runtime import open_session
from worker.declared_turns import Stage
from worker.drift import ROWS_AT_ONCE
from worker.metrics import Metrics
from worker.model import Model, ModelOptions, open_model
from worker.results import to_results
from worker.sample import STRIDE, sample_of
from worker.turn import Records, Tally

RESULTS = Path(__file__).parent / "results" / "metrics.json"
ROWS = (1, 16, 256, 4096)
SECONDS = 6.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table and write the JSON; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.metrics", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for each size of turn")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where to write the results")
    options = parser.parse_args(arguments)
    serving = _model()
    found = {str(rows): measure(serving, rows, options.seconds) for rows in ROWS}
    print(table(found))
    write_json(options.json, {"machine": machine(), "by_records_in_turn": found})
    return 0


def measure(serving: Model, rows: int, seconds: float) -> dict[str, float]:
    """Return microseconds per event, bare and added, for turns of so many records."""
    metrics = Metrics()
    metrics.model_load("accepted", serving, time.time())
    records = _records(rows)

    def bare() -> Tally:
        batch = serving.decoder.decode(records)
        return to_results(records, batch, serving.score(batch.features), serving, 5).tally

    def timed(tally: Tally) -> None:
        for stage in Stage:
            with metrics.stage(stage):
                pass
        now = time.time()
        metrics.acknowledged(tally, read_at=now - 0.01, now=now)

    def counted() -> None:
        timed(replace(bare(), sample=None))

    def sampled() -> None:
        # The bare turn takes its sample too: one more is what this one costs.
        batch = serving.decoder.decode(records)
        tally = to_results(records, batch, serving.score(batch.features), serving, 5).tally
        timed(replace(tally, sample=sample_of(records, batch, tally.p_values, serving.digest)))

    ways: tuple[Callable[[], object], ...] = (bare, counted, sampled)
    # So many turns fill a sample once: measured together, none has more of it than another.
    turns = -(-ROWS_AT_ONCE // -(-rows // STRIDE))
    spent: list[list[float]] = []
    deadline = time.monotonic() + seconds
    gc.collect()
    gc.freeze()  # As in a worker.
    draws = random.Random(1)
    while time.monotonic() < deadline:
        order = draws.sample(range(len(ways)), len(ways))  # None always follows the same one.
        took = {place: _cpu_s(ways[place], turns) for place in order}
        spent.append([took[place] for place in range(len(ways))])
    per_event = np.median(np.array(spent[1:]), axis=0) * 1e6 / (turns * rows)
    alone, with_counts, with_sample = per_event.tolist()
    return {
        "bare": alone,
        "counts": with_counts - alone,
        "counts_and_sample": with_sample - alone,
        "share": (with_sample - alone) / alone,
    }


def table(found: Mapping[str, Mapping[str, float]]) -> str:
    """Return the results for people."""
    lines = [
        "CPU us/event of decoding, scoring and judging, and what the metrics add",
        f"{'records in a turn':>18}{'bare':>10}{'counts':>10}{'+ sample':>10}{'share':>8}",
    ]
    for rows, of in found.items():
        figures = "".join(f"{of[k]:10.3f}" for k in ("bare", "counts", "counts_and_sample"))
        lines.append(f"{rows:>18}{figures}{of['share']:8.1%}")
    return "\n".join(lines)


def _cpu_s(way: Callable[[], object], times: int) -> float:
    began = time.thread_time()
    for _ in range(times):
        way()
    return time.thread_time() - began


def _model() -> Model:
    """Return the model of all benchmarks, with a drift reference."""
    sealed = model.sealed_model()
    serving = open_model(sealed, ModelOptions("cpu"))
    rows = model.normal_events(20_000, model.SEED + 9).astype(np.float32)
    reference = drift_reference(open_session(sealed), rows, np.arange(len(rows)))
    serving.contract = replaced(serving.contract, drift_reference=reference)
    return serving


def _records(rows: int) -> Records:
    values: list[bytes | None] = [message["value"] for message in all_messages("json", rows)]
    now_ms = [int(time.time() * 1000)] * rows
    none = [None] * rows
    return Records("events", [0] * rows, [*range(rows)], now_ms, [*none], values, [*none])


if __name__ == "__main__":
    sys.exit(main())
