"""Does a worker's memory grow under a steady load?

    python -m bench.memory [--minutes 60] [--rate 20000] [--delivery at-least-once] [--json FILE]

Events come at a steady rate, every one with an id of its own; of a hundred, one is no event, two
are anomalous whatever the threshold, and five carry headers. The worker's resident memory is read
from /proc every few seconds. What comes after the warm-up is fitted by a line: its slope with the
95 % interval of least squares (the samples of one process follow from each other, so the true
interval is wider), and the growth from the start of the line to its end.

The verdict: the growth, at the upper end of the interval, is within the bound; else, or if the
worker did not keep up, or did not count all that was sent, exit 1. Linux only.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from confluent_kafka import Producer

from bench.contender import forget_settings
from bench.counted import outcomes
from bench.model import normal_events, sealed_model
from bench.report import write_json
from bench.startup import resident_kib
from demo.broker import Broker, BrokerUnavailable
from demo.worker_process import WorkerFailed, WorkerProcess
from schemas.event import EventLayout
from schemas.write_event import encode_event

RESULTS = Path(__file__).parent / "results" / "memory.json"
MINUTES, RATE, BOUND_MIB = 60.0, 20_000, 8.0
WARM_UP_SHARE, WARM_UP_MAX_S = 0.2, 600.0
SAMPLE_S, SLICE_S = 5.0, 0.05
DRAIN_S = 30.0
PARTITIONS = 4
KINDS = 1000  # Different events, in which everything occurs; their ids never repeat.
HEADERS: list[tuple[str, str | bytes | None]] = [
    ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
]
RUBBISH = (b"", b"not json", b'{"event_id": "x"}', b'{"features": [1, true]}', b"\xff\xfe", None)
# An hour of it is 43 GB: only the latest stays on the disk.
TOPIC = {"retention.bytes": "268435456", "segment.bytes": "67108864", "file.delete.delay.ms": "100"}
BROKER = {"log.retention.check.interval.ms": 5000}
NORMAL_95 = 1.96


@dataclass(frozen=True)
class Line:
    """A line through samples of resident memory; `half_width` is that of the 95 % interval."""

    first_kib: float
    slope_kib_per_min: float
    half_width: float
    minutes: float

    @classmethod
    def through(cls, seconds: Sequence[float], kib: Sequence[float]) -> Line:
        """Fit the line by least squares; at least three samples."""
        x, y = np.asarray(seconds) / 60, np.asarray(kib, np.float64)
        off = x - x.mean()
        slope = float(off @ y / (off @ off))
        level = float(y.mean() + slope * off[0])
        rest = y - y.mean() - slope * off
        deviation = float(np.sqrt(rest @ rest / (len(y) - 2) / (off @ off)))
        return cls(level, slope, NORMAL_95 * deviation, float(x[-1] - x[0]))

    @property
    def growth_mib(self) -> float:
        return self.slope_kib_per_min * self.minutes / 1024

    @property
    def growth_max_mib(self) -> float:
        """The growth at the upper end of the interval."""
        return (self.slope_kib_per_min + self.half_width) * self.minutes / 1024


@dataclass(frozen=True)
class Watched:
    """A run: samples of resident memory by seconds since the start, and what became of what."""

    seconds: list[float]
    kib: list[int]
    sent: int
    outcomes: dict[str, int]

    @property
    def kept_up(self) -> bool:
        return sum(self.outcomes.values()) == self.sent


class Load:
    """Events at a steady rate, from this thread: `due` sends what is due."""

    def __init__(self, servers: str, topic: str, rate: int) -> None:
        self.sent = 0
        self._topic, self._rate = topic, rate
        self._producer = Producer(
            {
                "bootstrap.servers": servers,
                "enable.idempotence": True,
                "linger.ms": 5,
                "queue.buffering.max.messages": 1_000_000,
                "log_level": 3,
            }
        )
        self._kinds = itertools.cycle(_kinds())

    def due(self, elapsed_s: float) -> None:
        """Send what has become due since the start, `elapsed_s` ago."""
        plain = []
        for number in range(self.sent, int(elapsed_s * self._rate)):
            before, after, with_headers = next(self._kinds)
            name = b"%d" % number
            value = before if after is None else b"".join((before or b"", name, after))
            if with_headers:
                self._producer.produce(self._topic, value, key=name, headers=HEADERS)
            else:
                plain.append({"value": value, "key": name})
        if self._producer.produce_batch(self._topic, plain) != len(plain):
            raise WorkerFailed("the broker does not take the load: the client's queue is full")
        self.sent = max(self.sent, int(elapsed_s * self._rate))
        self._producer.poll(0)

    def end(self) -> None:
        if self._producer.flush(DRAIN_S):
            raise WorkerFailed("the broker did not acknowledge the load")


def _kinds() -> list[tuple[bytes | None, bytes | None, bool]]:
    """Return events cut in two where the id goes, or rubbish and None; and if they have headers."""
    rows = normal_events(KINDS, seed=5)
    rows[1::100] += 1000.0
    rows[2::100] += 1000.0
    kinds: list[tuple[bytes | None, bytes | None, bool]] = []
    for number, row in enumerate(rows.tolist()):
        with_headers = number % 20 == 0
        if number % 100 == 3:
            kinds.append((RUBBISH[number // 100 % len(RUBBISH)], None, with_headers))
            continue
        event = encode_event(
            EventLayout(), (), event_id="@", timestamp_ms=1_767_225_600_000, features=row
        )
        before, _, after = event.partition(b"@")
        kinds.append((before, after, with_headers))
    return kinds


def watch(
    broker: Broker, folder: Path, seconds: float, rate: int, delivery: str, sample_s: float
) -> Watched:
    """Run a worker under the load for so long."""
    forget_settings()
    broker.create_topics(dict.fromkeys(("events", "scores", "dead-letters"), PARTITIONS), TOPIC)
    (folder / "bench.onnx").write_bytes(sealed_model())
    settings = {
        "KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers,
        "ODRADEK_MODEL": str(folder / "bench.onnx"),
        "ODRADEK_DELIVERY": delivery,
        "ODRADEK_PROVIDER": "cpu",
        "ODRADEK_HTTP_HOST": "127.0.0.1",
    }
    worker = WorkerProcess(settings, folder / "worker.log")
    worker.start()
    try:
        worker.wait_until_ready()
        return _play(worker, Load(broker.bootstrap_servers, "events", rate), seconds, sample_s)
    finally:
        worker.kill()


def _play(worker: WorkerProcess, load: Load, seconds: float, sample_s: float) -> Watched:
    assert worker.pid is not None
    times: list[float] = []
    kib: list[int] = []
    began = time.monotonic()
    while (elapsed_s := time.monotonic() - began) < seconds:
        load.due(elapsed_s)
        if elapsed_s >= len(times) * sample_s:
            if not worker.running:
                raise WorkerFailed(f"the worker has ended: {worker.log.read_text()[-2000:]}")
            times.append(elapsed_s)
            kib.append(resident_kib(worker.pid))
        time.sleep(SLICE_S)
    load.end()
    deadline = time.monotonic() + DRAIN_S
    while sum((counts := outcomes(worker.http_port)).values()) < load.sent:
        if time.monotonic() > deadline:
            break
        time.sleep(SLICE_S)
    return Watched(times, kib, load.sent, counts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Watch, print the verdict and write the JSON; return the exit code."""
    chosen = _arguments(arguments)
    seconds = chosen.minutes * 60
    try:
        with tempfile.TemporaryDirectory() as folder, Broker(properties=BROKER) as broker:
            seen = watch(
                broker, Path(folder), seconds, chosen.rate, chosen.delivery, chosen.sample_s
            )
    except (BrokerUnavailable, WorkerFailed) as error:
        print(error, file=sys.stderr)
        return 3 if isinstance(error, BrokerUnavailable) else 1
    warm_up_s = min(WARM_UP_MAX_S, WARM_UP_SHARE * seconds)
    begin = next(place for place, at in enumerate(seen.seconds) if at >= warm_up_s)
    line = Line.through(seen.seconds[begin:], seen.kib[begin:])
    print(report(seen, line, chosen.delivery, chosen.rate, warm_up_s))
    said, good = verdict(seen, line, chosen.bound_mib)
    print(said)
    settings = {name: vars(chosen)[name] for name in ("minutes", "rate", "delivery", "bound_mib")}
    found = {**settings, "good": good, "line": asdict(line), **asdict(seen)}
    write_json(chosen.json, found)
    return 0 if good else 1


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.memory", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--rate", type=int, default=RATE, help="events a second")
    parser.add_argument(
        "--delivery", choices=("at-least-once", "exactly-once"), default="at-least-once"
    )
    parser.add_argument("--bound-mib", type=float, default=BOUND_MIB, help="growth that is allowed")
    parser.add_argument("--sample-s", type=float, default=SAMPLE_S)
    parser.add_argument("--json", type=Path, default=RESULTS, help="where to write the results")
    chosen = parser.parse_args(arguments)
    if chosen.minutes * 60 < 6 * chosen.sample_s:
        parser.error(f"wanted at least six samples, one every {chosen.sample_s:g} s")
    return chosen


def report(seen: Watched, line: Line, delivery: str, rate: int, warm_up_s: float) -> str:
    """Return what was seen, for people."""
    counts = ", ".join(f"{outcome} {count:,}" for outcome, count in seen.outcomes.items())
    return (
        f"{delivery}, {rate:,} events/s: {seen.sent:,} sent; {counts}.\n"
        f"Resident after {warm_up_s:.0f} s: {line.first_kib / 1024:.1f} MiB; at most "
        f"{max(seen.kib) / 1024:.1f} MiB. Slope over the {line.minutes:.1f} min from there: "
        f"{line.slope_kib_per_min:+.1f} +- {line.half_width:.1f} KiB/min, "
        f"{line.growth_mib:+.2f} MiB in all."
    )


def verdict(seen: Watched, line: Line, bound_mib: float) -> tuple[str, bool]:
    """Return the verdict in words, and whether it is good."""
    if not seen.kept_up:
        done = sum(seen.outcomes.values())
        return f"No verdict: {done:,} of {seen.sent:,} records are counted.", False
    grown = f"{line.growth_max_mib:+.2f} MiB at the upper end of the interval"
    if line.growth_max_mib > bound_mib:
        return f"Growth beyond {bound_mib:g} MiB: {grown}.", False
    return f"No growth within {bound_mib:g} MiB: {grown}.", True


if __name__ == "__main__":
    sys.exit(main())
