"""One worker and two over the same backlog, on a real broker: who does how much, and how fast.

Each worker is pinned to a core of its own; the broker has all cores, and shares them with the
workers: on a machine with few cores two workers do not do twice as much, and the CPU of each
column says who was in whose way. The workers join first and stand still (SIGSTOP) while the
backlog is written, so that both begin at the same moment with their partitions shared out.
Linux only.
"""

from __future__ import annotations

import os
import re
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import Consumer, TopicPartition

from bench.contender import Clock, forget_settings
from bench.counted import outcomes
from bench.load import fill
from bench.model import sealed_model
from demo.broker import Broker
from demo.worker_process import WorkerFailed, WorkerProcess

COURSES = ((1, 2), (2, 2), (1, 8), (2, 8))  # Workers, partitions.
WAIT_S = 60.0
LOOK_EVERY_S = 0.01
_HAVING = re.compile(r"having \[([\d, ]*)\]")


@dataclass(frozen=True)
class Shared:
    """One course: what each worker did of the backlog, and the CPU of all, in seconds."""

    partitions: int
    events: int
    events_per_s: float
    records: tuple[int, ...]
    worker_cpu_s: float
    broker_cpu_s: float


def measure(broker: Broker, events: int, courses: Sequence[tuple[int, int]] = COURSES) -> str:
    """Run the courses, after one to warm up the broker, and return a table of them.

    Raises:
        WorkerFailed: the workers did not score every event exactly once.
    """
    forget_settings()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "bench.onnx").write_bytes(sealed_model())
        _run(broker, folder, "warm-up", 1, 2, events)
        runs = [
            _run(broker, folder, f"course-{place}", workers, partitions, events)
            for place, (workers, partitions) in enumerate(courses)
        ]
    return table(runs, len(os.sched_getaffinity(0)))


def table(runs: Sequence[Shared], cores: int) -> str:
    """Return the courses as a table in Markdown."""
    head = "| workers | partitions | events/s | share of each | workers' CPU us/event "
    lines = [
        f"{head}| broker's CPU us/event | cores in use, of {cores} |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for run in runs:
        shares = ", ".join(f"{records / run.events:.1%}" for records in run.records)
        in_use = (run.worker_cpu_s + run.broker_cpu_s) / run.events * run.events_per_s
        lines.append(
            f"| {len(run.records)} | {run.partitions} | {run.events_per_s:,.0f} | {shares} "
            f"| {run.worker_cpu_s / run.events * 1e6:.1f} "
            f"| {run.broker_cpu_s / run.events * 1e6:.1f} | {in_use:.2f} |"
        )
    return "\n".join(lines)


def _run(
    broker: Broker, folder: Path, place: str, workers: int, partitions: int, events: int
) -> Shared:
    output = f"{place}-scores"
    broker.create_topics({place: partitions, output: partitions, f"{place}-dead": 1})
    settings = {
        "KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers,
        "ODRADEK_MODEL": str(folder / "bench.onnx"),
        "ODRADEK_INPUT_TOPIC": place,
        "ODRADEK_OUTPUT_TOPIC": output,
        "ODRADEK_DEAD_LETTER_TOPIC": f"{place}-dead",
        "ODRADEK_HTTP_HOST": "127.0.0.1",
        "ODRADEK_PROVIDER": "cpu",
    }
    group = [WorkerProcess(settings, folder / f"{place}-{n}.log") for n in range(workers)]
    cores = sorted(os.sched_getaffinity(0))
    with ExitStack() as stack:
        for number, worker in enumerate(group):
            stack.callback(worker.kill)
            worker.start()
            # In time: it has one thread until it imports something, and later ones inherit this.
            os.sched_setaffinity(_pid(worker), {cores[-1 - number % len(cores)]})
        for worker in group:
            worker.wait_until_ready()
            _wait_until_having(worker, partitions // workers)
        with _standing_still(group):
            fill(broker.bootstrap_servers, place, events)
            scores = _Written(broker.bootstrap_servers, output, partitions)
            before = [_cpu_s(pid) for pid in (broker.pid, *map(_pid, group))]
        rate = scores.rate(events)
        after = [_cpu_s(pid) for pid in (broker.pid, *map(_pid, group))]
        broker_cpu_s, *workers_cpu_s = (b - a for a, b in zip(before, after, strict=True))
        records = _records(group, events)
    return Shared(partitions, events, rate, records, sum(workers_cpu_s), broker_cpu_s)


@contextmanager
def _standing_still(group: Sequence[WorkerProcess]) -> Iterator[None]:
    """Stop the workers for less than a session lasts; they notice nothing."""
    for worker in group:
        os.kill(_pid(worker), signal.SIGSTOP)
    try:
        yield
    finally:
        for worker in group:
            os.kill(_pid(worker), signal.SIGCONT)


def _wait_until_having(worker: WorkerProcess, partitions: int) -> None:
    deadline = time.monotonic() + WAIT_S
    having: list[str] = []
    while not having or len(having[-1].split(",")) != partitions:
        if time.monotonic() > deadline:
            raise WorkerFailed(f"a worker has {having[-1:]}; wanted {partitions} partitions")
        time.sleep(LOOK_EVERY_S)
        having = _HAVING.findall(worker.log.read_text())


class _Written:
    """How many scores are in the output topic, asked by a client that is connected already."""

    def __init__(self, servers: str, topic: str, partitions: int) -> None:
        self._reader = Consumer(
            {"bootstrap.servers": servers, "group.id": "bench-share", "log_level": 4}
        )
        self._places = [TopicPartition(topic, partition) for partition in range(partitions)]
        self._count()

    def rate(self, events: int) -> float:
        """Wait until all scores are written; return those after the first look that saw any, by
        time. The first come when the clients have taken up their work again, no part of it.
        """
        deadline = time.monotonic() + WAIT_S
        first, began = 0, 0.0
        while (written := self._count()) < events:
            now = time.monotonic()
            if not first:
                first, began = written, now
            if now > deadline:
                raise WorkerFailed(f"{written:,} of {events:,} scores within {WAIT_S:g} s")
            time.sleep(LOOK_EVERY_S)
        took = time.monotonic() - began
        self._reader.close()
        if not first:
            raise WorkerFailed(f"all {events:,} scores came at once: too few to time")
        return (events - first) / took

    def _count(self) -> int:
        return sum(self._reader.get_watermark_offsets(at, timeout=30)[1] for at in self._places)


def _records(group: Sequence[WorkerProcess], events: int) -> tuple[int, ...]:
    """Return how many records each worker says that it has done, once they are all."""
    deadline = time.monotonic() + WAIT_S
    while sum(records := tuple(map(_records_of, group))) < events:
        if time.monotonic() > deadline:
            break
    if sum(records) != events:
        raise WorkerFailed(f"the workers count {records} records; the backlog has {events:,}")
    return records


def _records_of(worker: WorkerProcess) -> int:
    return sum(outcomes(worker.http_port).values())


def _pid(worker: WorkerProcess) -> int:
    assert worker.pid is not None
    return worker.pid


def _cpu_s(pid: int) -> float:
    return Clock.read(pid, None).process_s
