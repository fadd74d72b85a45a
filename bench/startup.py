"""From the start of the worker's process to ready, and what it takes when nothing happens.

    python -m bench.startup [--starts N] [--rest-s S] [--idle-s S] [--json FILE]

The broker is up and has the topics, and the disk is warm: one start before the first is not
counted. Each start is followed from outside, by the wall's clock:

- `imports`: of `worker.run_command`, in a process of its own, which ends then: Python, libraries;
- `settings`: what is left until /readyz first answers, with a refusal: settings, the HTTP server;
- `model`: until the model is open and has passed its golden batch;
- `topics`: until the broker has told of the topics and their limits;
- `join`: until /readyz says yes: the worker is in its group and has its partitions;
- `placed`, after ready: until it knows where its partitions begin, and reads.

The embedded broker lets a first member in at once. Kafka's own default is to wait for others for
3 s (group.initial.rebalance.delay.ms) where a group is empty; the last line shows such a start.
At rest: resident memory after `--rest-s`, then CPU over `--idle-s`, of the last start. Linux only.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from statistics import median

from bench.contender import Clock, forget_settings
from bench.model import sealed_model
from bench.report import write_json
from demo.broker import Broker, BrokerUnavailable
from demo.worker_process import WorkerFailed, WorkerProcess

RESULTS = Path(__file__).parent / "results" / "startup.json"
TARGET_S = 2.0
LOOK_EVERY_S = 0.005
WAIT_S = 60.0
KAFKAS_DELAY_MS = 3000
TOPICS = {"events": 2, "scores": 2, "dead-letters": 1}
PHASES = ("imports", "settings", "model", "topics", "join", "ready", "placed")

Start = dict[str, float]  # Seconds by phase.


@dataclass(frozen=True)
class Rest:
    """A worker without events: resident memory in MiB, CPU as a share of a core."""

    memory_mib: float
    cpu_share: float


class Starter:
    """Starts workers on one broker, each in a group of its own."""

    def __init__(self, broker: Broker, folder: Path) -> None:
        self._broker = broker
        self._folder = folder
        self._started = 0
        forget_settings()
        (folder / "bench.onnx").write_bytes(sealed_model())

    def worker(self) -> WorkerProcess:
        self._started += 1
        settings = {
            "KAFKA_BOOTSTRAP_SERVERS": self._broker.bootstrap_servers,
            "ODRADEK_GROUP": f"group-{self._started}",
            "ODRADEK_MODEL": str(self._folder / "bench.onnx"),
            "ODRADEK_PROVIDER": "cpu",
            "ODRADEK_HTTP_HOST": "127.0.0.1",
            "ODRADEK_LOG_FORMAT": "json",
        }
        return WorkerProcess(settings, self._folder / f"{self._started}.log")

    def start(self, worker: WorkerProcess) -> Start:
        """Start a worker; return the seconds of each phase, all of them together as `ready`."""
        imports_s = _imports_s()
        began, began_epoch = time.monotonic(), time.time()
        worker.start()
        answered_s, ready_s = _until_ready_s(worker, began)
        model_s = _logged_s(worker, "Scoring with ", began_epoch)
        topics_s = _logged_s(worker, "Reading .* as group", began_epoch)
        placed_s = _logged_s(worker, "Beginning: ", began_epoch)
        return {
            "imports": imports_s,
            "settings": answered_s - imports_s,
            "model": model_s - answered_s,
            "topics": topics_s - model_s,
            "join": ready_s - topics_s,
            "ready": ready_s,
            "placed": placed_s - ready_s,
        }


def _imports_s() -> float:
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "import os, worker.run_command; os._exit(0)"], check=True)
    return time.monotonic() - began


def _until_ready_s(worker: WorkerProcess, began: float) -> tuple[float, float]:
    """Wait for /readyz; return when it first answered at all, and when with yes."""
    url = f"http://127.0.0.1:{worker.http_port}/readyz"
    answered_s: float | None = None
    while True:
        now = time.monotonic()
        if not worker.running or now - began > WAIT_S:
            raise WorkerFailed(f"not ready: {worker.log.read_text()}")
        try:
            with urllib.request.urlopen(url, timeout=5):
                ready_s = time.monotonic() - began
                return (ready_s if answered_s is None else answered_s), ready_s
        except urllib.error.HTTPError as refused:
            refused.close()
            answered_s = time.monotonic() - began if answered_s is None else answered_s
        except OSError:
            pass  # It does not listen yet.
        time.sleep(LOOK_EVERY_S)


def _logged_s(worker: WorkerProcess, message: str, began_epoch: float) -> float:
    """Wait until the worker has logged this; return when it did."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        for line in worker.log.read_text().splitlines():
            if re.search(f'"message":"{message}', line):
                return datetime.fromisoformat(json.loads(line)["time"]).timestamp() - began_epoch
        time.sleep(LOOK_EVERY_S)
    raise WorkerFailed(f"{message!r} is not in its log: {worker.log.read_text()}")


def rest(pid: int, rest_s: float, idle_s: float) -> Rest:
    """Look at a process that does nothing."""
    time.sleep(rest_s)
    before = Clock.read(pid, None)
    memory_mib = resident_kib(pid) / 1024
    time.sleep(idle_s)
    after = Clock.read(pid, None)
    return Rest(memory_mib, (after.process_s - before.process_s) / (after.wall_s - before.wall_s))


def resident_kib(pid: int) -> int:
    """Return a process's resident memory, in KiB."""
    found = re.search(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.M)
    assert found is not None
    return int(found[1])


def measure(starts: int, rest_s: float, idle_s: float) -> tuple[list[Start], Rest]:
    """Start workers one after another, and let the last one rest."""
    with tempfile.TemporaryDirectory() as folder, Broker() as broker:
        broker.create_topics(TOPICS)
        starter = Starter(broker, Path(folder))
        found = []
        for number in range(starts + 1):  # The first warms the disk.
            worker = starter.worker()
            try:
                found.append(starter.start(worker))
                if number == starts:
                    assert worker.pid is not None
                    at_rest = rest(worker.pid, rest_s, idle_s)
                if worker.stop() != 0:
                    raise WorkerFailed(f"it did not stop in order: {worker.log.read_text()}")
            finally:
                worker.kill()
        return found[1:], at_rest


def start_with_kafkas_delay() -> Start:
    """Start one worker on a broker that waits for others, as Kafka does unless told otherwise."""
    properties = {"group.initial.rebalance.delay.ms": KAFKAS_DELAY_MS}
    with tempfile.TemporaryDirectory() as folder, Broker(properties=properties) as broker:
        broker.create_topics(TOPICS)
        starter = Starter(broker, Path(folder))
        worker = starter.worker()
        try:
            return starter.start(worker)
        finally:
            worker.kill()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write the JSON; return 1 where the median start misses its target."""
    parser = argparse.ArgumentParser(prog="python -m bench.startup", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--starts", type=int, default=10)
    parser.add_argument("--rest-s", type=float, default=10.0)
    parser.add_argument("--idle-s", type=float, default=20.0)
    parser.add_argument("--json", type=Path, default=RESULTS, help="where to write the results")
    chosen = parser.parse_args(arguments)
    if chosen.starts < 1:
        parser.error("wanted at least one start")
    try:
        starts, at_rest = measure(chosen.starts, chosen.rest_s, chosen.idle_s)
        delayed = start_with_kafkas_delay()
    except (BrokerUnavailable, WorkerFailed) as error:
        print(error, file=sys.stderr)
        return 3 if isinstance(error, BrokerUnavailable) else 1
    print(phases(starts))
    print(
        f"At rest: {at_rest.memory_mib:.0f} MiB resident after {chosen.rest_s:g} s, "
        f"{at_rest.cpu_share:.2%} of a core over {chosen.idle_s:g} s."
    )
    print(
        f"On a broker that waits {KAFKAS_DELAY_MS / 1000:g} s for others: {delayed['ready']:.2f} s."
    )
    found = {"starts": starts, "rest": asdict(at_rest), "with_kafkas_delay": delayed}
    write_json(chosen.json, found)
    return 0 if _ready_s(starts) < TARGET_S else 1


def phases(starts: Sequence[Start]) -> str:
    """Return the phases and the verdict, for people."""
    lines = []
    for phase in PHASES:
        seconds = [start[phase] for start in starts]
        lines.append(f"{phase:10}{median(seconds):8.3f} s, at most {max(seconds):.3f} s")
    ready_s = _ready_s(starts)
    met = "met" if ready_s < TARGET_S else "missed"
    wanted = f"wanted less than {TARGET_S:g} s: {met}"
    lines.append(f"Ready after {ready_s:.2f} s, the median of {len(starts)} starts; {wanted}.")
    return "\n".join(lines)


def _ready_s(starts: Sequence[Start]) -> float:
    return median(start["ready"] for start in starts)


if __name__ == "__main__":
    sys.exit(main())
