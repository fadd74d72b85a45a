"""Events per second and CPU per event: the worker against the textbook loop, on real Kafka.

    python -m bench.throughput [--events N] [--repeats N] [--quick]

Three programs read the same topic of JSON events (57 features, about 600 bytes), one after
another, in an order that turns round from repeat to repeat:

- `textbook loop`: poll, json.loads, the model on one row, json.dumps, produce; flush and commit
  every 1,000 (`bench.textbook`);
- `odradek-worker`: the real `python -m worker run`, at-least-once, with its metrics on;
- `exactly once`: the same with ODRADEK_DELIVERY=exactly-once, a transaction for each turn;
- `raw forward`: the bytes written back as they are, by the worker's own clients and turns: not a
  contender, but the ceiling (`bench.raw_forward`).

The first three load the same sealed file and write the same score record. Everything they wrote is
read back after each run: one output for every event, keys unique, all scores right to 1e-4, all
offsets committed. A run that fails this ends the program; no figure is printed.

What is measured. The events stand in the topic before a contender starts; each run has a new
group and a new output topic. The contender alone has one core, the broker and this program
have the others. Events/s: the outputs after the first append stamp of the broker, by the time from
there to the last stamp. CPU: user + system of the contender's process from its join to the last
output. `own core` is the contender's share of its core in that time, `others` the largest share
that anything else had of it (other programs, the kernel's network, the hypervisor): where they
had much, believe the CPU column and its ratio rather than the events/s.

Limits. One partition, one broker without replicas, on the same machine and by loopback; no
compression; a small model with fixed weights, where 1 % of events are anomalous; a backlog, which
is what fills batches: it says nothing of latency. The fast ones drain the topic in a second or
two. On a shared or virtual machine the speeds vary by a third from run to run: the ratio within
one run of this program is worth more than any speed in it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime

from bench import model
from bench.check import Reader, check_outputs
from bench.contender import Contender, ContenderFailed, Cores, stage_seconds
from bench.load import Load, fill
from bench.report import ONCE, RAW, TEXTBOOK, WORKER, Run, line, results, table
from demo.broker import Broker, BrokerUnavailable, free_port
from schemas.calibration import Floats
from schemas.contract import CONTRACT_KEY, Contract

MODULES = {
    TEXTBOOK: ("bench.textbook",),
    WORKER: ("worker", "run"),
    ONCE: ("worker", "run", "--delivery", "exactly-once"),
    RAW: ("bench.raw_forward",),
}
RESULTS = Path(__file__).parent / "results" / "throughput.json"
EVENTS, REPEATS = 200_000, 5
QUICK_EVENTS, QUICK_REPEATS = 20_000, 1
EVENTS_MIN = 20_000
INPUT_TOPIC = "bench-events"
OUTPUT_TOPIC = {"message.timestamp.type": "LogAppendTime", "file.delete.delay.ms": "1000"}
# A broker to be measured, not a small one: Java's full compiler, and room for what is in flight.
JAVA_OPTIONS = ("-Xmx1g", "-XX:TieredStopAtLevel=4")


@dataclass(frozen=True)
class Course:
    """What every run has in common: where, over what, and what is right."""

    broker: Broker
    reader: Reader
    load: Load
    model: Path
    contract: Contract
    scores: Floats
    cores: Cores


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table and write the JSON; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.throughput", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--events", type=int, help=f"default {EVENTS:,}, or {QUICK_EVENTS:,}")
    parser.add_argument("--repeats", type=int, help=f"default {REPEATS}, or {QUICK_REPEATS}")
    parser.add_argument("--quick", action="store_true", help="a self-check; its speeds mean little")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where to write the results")
    chosen = parser.parse_args(arguments)
    events = chosen.events or (QUICK_EVENTS if chosen.quick else EVENTS)
    repeats = chosen.repeats or (QUICK_REPEATS if chosen.quick else REPEATS)
    if events < EVENTS_MIN or repeats < 1:
        parser.error(
            f"wanted at least {EVENTS_MIN:,} events, which are a few batches, and 1 repeat"
        )
    if sys.platform != "linux":
        parser.error("CPU and cores are read from Linux's /proc; there is none here")
    cores = Cores.shared_out()
    try:
        runs = measure(events, repeats, cores, _say)
    except BrokerUnavailable as error:
        _say(str(error))
        return 3
    except ContenderFailed as error:
        _say(f"No figures: {error}")
        return 1
    print(table(runs, events))
    found = results(runs, events, quick=chosen.quick, pinned=cores.contender is not None)
    chosen.json.parent.mkdir(parents=True, exist_ok=True)
    chosen.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0


def measure(events: int, repeats: int, cores: Cores, say: Callable[[str], None]) -> list[Run]:
    """Run every contender `repeats` times over `events` events."""
    if cores.contender is None:
        say("There is one core: contender and broker share it, and the figures mean little.")
    os.sched_setaffinity(0, cores.harness)  # Before the broker starts, so that it inherits it.
    with tempfile.TemporaryDirectory() as folder, Broker(java_options=JAVA_OPTIONS) as broker:
        sealed = Path(folder) / "bench.onnx"
        sealed.write_bytes(model.sealed_model())
        say(f"Writing {events:,} events.")
        broker.create_topics({INPUT_TOPIC: 1, "dead-letters": 1})
        load = fill(broker.bootstrap_servers, INPUT_TOPIC, events)
        reader = Reader(broker.bootstrap_servers)
        contract, scores = _answers(sealed, load)
        course = Course(broker, reader, load, sealed, contract, scores, cores)
        try:
            say("Warming up the broker.")
            run(course, RAW, "warm-up")
            runs = []
            for repeat in range(repeats):
                for name in (MODULES, reversed(MODULES))[repeat % 2]:
                    runs.append(run(course, name, f"{repeat}"))
                    say(line(repeat, runs[-1]))
            return runs
        finally:
            reader.close()


def run(course: Course, name: str, label: str) -> Run:
    """Run one contender over the whole topic and check all that it wrote.

    Raises:
        ContenderFailed: it did not do all of the work, or not right.
    """
    events = len(course.load)
    place = f"{name.replace(' ', '-')}-{label}"
    course.broker.create_topics({place: 1}, OUTPUT_TOPIC)
    port = free_port()
    settings = {
        "KAFKA_BOOTSTRAP_SERVERS": course.broker.bootstrap_servers,
        "ODRADEK_MODEL": str(course.model),
        "ODRADEK_INPUT_TOPIC": course.load.topic,
        "ODRADEK_OUTPUT_TOPIC": place,
        "ODRADEK_GROUP": place,
        "ODRADEK_PROVIDER": "cpu",
        "ODRADEK_HTTP_PORT": str(port),
    }
    with Contender(MODULES[name], settings, course.cores) as contender:
        contender.wait_until_joined()
        if name == ONCE:
            course.reader.wait_until_committed(contender, place, course.load.topic, events)
        else:
            course.reader.wait_until_drained(contender, place, events)
        spent = contender.spent()
        stages = _stage_seconds(port) if name == WORKER else {}
        contender.stop()
    committed = course.reader.committed(place, course.load.topic)
    if committed != events:
        raise ContenderFailed(f"{name} committed offset {committed:,}; wanted {events:,}")
    if dead := course.reader.end("dead-letters"):
        raise ContenderFailed(f"{name} wrote {dead:,} dead letters; the events are all good")
    contract = None if name == RAW else course.contract
    stamps = check_outputs(course.reader, course.load, place, contract, course.scores)
    course.reader.delete(place)
    return Run(
        name,
        stamps.events_per_s(),
        spent.cpu_s / events * 1e6,
        spent,
        {stage: seconds / events * 1e6 for stage, seconds in stages.items()},
    )


def _answers(sealed: Path, load: Load) -> tuple[Contract, Floats]:
    """Return the contract, and the right score of every event: by onnxruntime, 1,000 at a time."""
    session = onnxruntime.InferenceSession(sealed, providers=["CPUExecutionProvider"])
    contract = Contract.from_json(session.get_modelmeta().custom_metadata_map[CONTRACT_KEY])
    score = model.scorer(sealed.read_bytes())
    blocks = [load.features[at : at + 1000] for at in range(0, len(load), 1000)]
    return contract, np.concatenate([score(block) for block in blocks])


def _stage_seconds(port: int) -> dict[str, float]:
    try:
        return stage_seconds(port)
    except OSError as error:
        _say(f"The worker's /metrics did not answer ({error}); its stages are not shown.")
        return {}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
