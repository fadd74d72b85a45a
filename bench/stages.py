"""Where the worker's time goes: CPU microseconds per event, by stage.

    python -m bench.stages [--of work|turns|waits] [--events N] [--repeats N] [--json FILE]

One worker, told different things, drains the same topic again and again; the rows take turns, and
every output is checked as in `bench.compare`. `work` compares what is read and promised, `turns`
how many records make a turn, `waits` librdkafka's own waits and thresholds, ours against its
defaults: what this prints is the reason for the values in `worker.kafka_properties`.

A stage's figure is the CPU of the worker's own thread, by the worker's own metric
`odradek_turn_stage_cpu_seconds_total`; reading includes the turning of records into columns.
`others` is all else that the process used from its join to its last output: librdkafka's threads,
above all, and what lies between the stages.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from bench import model
from bench.compare import EVENTS, REPEATS
from bench.contender import JAVA_OPTIONS, ContenderFailed, Cores
from bench.contenders.entries import BY_KEY, WORKER, Entry
from bench.course import Course
from bench.findings import RAW, Run
from bench.load import Kind
from bench.report import machine, say, write_json
from demo.broker import Broker, BrokerUnavailable

STAGES = ("read", "decode", "score", "encode", "write", "settle")
RESULTS = Path(__file__).parent / "results"


def _row(
    name: str,
    kind: Kind = "json",
    module: tuple[str, ...] = WORKER,
    **settings: str,
) -> Entry:
    return Entry(
        name.replace(" ", "-"),
        name,
        module,
        kind=kind,
        settings=settings,
        transactional=settings.get("ODRADEK_DELIVERY") == "exactly-once",
    )


ROWS: Mapping[str, Sequence[Entry]] = {
    "work": (
        _row("array"),
        _row("array without scanner", module=("bench.contenders.pure_worker", "run")),
        _row("named", "named"),
        _row("named without scanner", "named", module=("bench.contenders.pure_worker", "run")),
        _row("packed", "packed", ODRADEK_INPUT_FORMAT="packed"),
        _row("trace headers", "traced"),
        _row("exactly once", ODRADEK_DELIVERY="exactly-once"),
    ),
    "turns": tuple(
        _row(f"turns of {records}", ODRADEK_BATCH_MAX=f"{records}")
        for records in (256, 512, 1024, 2048, 4096, 8192, 16384)
    ),
    "waits": (
        _row("as it is"),
        _row("linger 0", KAFKA_PRODUCER_LINGER_MS="0"),
        _row("linger 1 ms", KAFKA_PRODUCER_LINGER_MS="1"),
        _row("linger 50 ms", KAFKA_PRODUCER_LINGER_MS="50"),
        _row("queue of 100000", KAFKA_CONSUMER_QUEUED_MIN_MESSAGES="100000"),
        _row("queue backoff 10 ms", KAFKA_CONSUMER_FETCH_QUEUE_BACKOFF_MS="10"),
        _row("queue backoff 1 s", KAFKA_CONSUMER_FETCH_QUEUE_BACKOFF_MS="1000"),
        _row("produce 10000 at once", KAFKA_PRODUCER_BATCH_NUM_MESSAGES="10000"),
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table and write the JSON; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.stages", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--of", choices=[*ROWS], default="work", help="which rows")
    parser.add_argument("--events", type=int, default=EVENTS, help=f"default {EVENTS:,}")
    parser.add_argument("--repeats", type=int, default=REPEATS, help=f"default {REPEATS}")
    parser.add_argument("--json", type=Path, help="where to write the results")
    options = parser.parse_args(arguments)
    try:
        runs = measure(ROWS[options.of], options.events, options.repeats)
    except BrokerUnavailable as error:
        say(str(error))
        return 3
    except ContenderFailed as error:
        say(f"No figures: {error}")
        return 1
    print(table(runs))
    columns = ("total", *STAGES)
    medians = {name: dict(zip(columns, costs(of), strict=True)) for name, of in runs.items()}
    out: Path = options.json or RESULTS / f"stages-{options.of}.json"
    write_json(out, {"machine": machine(), "us_per_event": medians})
    return 0


def measure(rows: Sequence[Entry], events: int, repeats: int) -> dict[str, list[Run]]:
    """Run each row `repeats` times.

    Raises:
        BrokerUnavailable, ContenderFailed: there is nothing to print.
    """
    cores = Cores.shared_out()
    os.sched_setaffinity(0, cores.harness)  # Before the broker starts, so that it inherits it.
    runs: dict[str, list[Run]] = {row.name: [] for row in rows}
    with tempfile.TemporaryDirectory() as folder, Broker(java_options=JAVA_OPTIONS) as broker:
        sealed = Path(folder) / "bench.onnx"
        sealed.write_bytes(model.sealed_model())
        course = Course(broker, {"bench": sealed}, cores, say)
        try:
            say("Warming up the broker.")
            course.rate(BY_KEY[RAW], events, -1)
            for repeat in range(repeats):
                for row in (rows, rows[::-1])[repeat % 2]:
                    run = course.rate(row, events, repeat)
                    if not run.stages_us_per_event:
                        raise ContenderFailed(f"{row.name}: /metrics did not answer")
                    runs[row.name].append(run)
                    say(f"{repeat + 1}. {row.name}: {runs[row.name][-1].cpu_us_per_event:.2f} us")
        finally:
            course.close()
    return runs


def costs(runs: Sequence[Run]) -> list[float]:
    """Return the medians of the whole cost and of each stage, in CPU microseconds per event."""
    total = median(run.cpu_us_per_event for run in runs)
    return [total, *(median(run.stages_us_per_event[stage] for run in runs) for stage in STAGES)]


def table(runs: Mapping[str, Sequence[Run]]) -> str:
    """Return the results for people."""
    columns = ("events/s", "total", *STAGES, "others")
    lines = [
        "CPU us/event, medians; events/s: median (lowest-highest)",
        f"{'':24}{columns[0]:>28}" + "".join(f"{column:>8}" for column in columns[1:]),
    ]
    for name, of in runs.items():
        rates = sorted(run.events_per_s for run in of)
        rate = f"{median(rates):,.0f} ({rates[0]:,.0f}-{rates[-1]:,.0f})"
        total, *stages = costs(of)
        figures = [total, *stages, total - sum(stages)]
        lines.append(f"{name:24}{rate:>28}" + "".join(f"{figure:8.2f}" for figure in figures))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
