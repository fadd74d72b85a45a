"""A contender's process: pinned to a core, measured from its join to the end of its work.

CPU is that of all its threads, by the process's own clock, in nanoseconds; what others had of its
core comes from /proc, in ticks of 10 ms. It starts when the process logs "Assigned partitions"
(imports, model and join are done), and so leaves out what it does until this program, on another
core, has read that line: a few milliseconds.
Linux only.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from demo.process import start_child

ROOT = Path(__file__).resolve().parents[1]
JOINED = b"Assigned partitions"
# A broker to be measured, not a small one: Java's full compiler, and room for what is in flight.
JAVA_OPTIONS = ("-Xmx1g", "-XX:TieredStopAtLevel=4")
JOIN_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 40.0
FRAMEWORK_TOLD_AGAIN_S = 5.0
SCRAPE_TIMEOUT_S = 3.0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cores:
    """One core for the contender, the others for broker and harness; None: nothing is pinned."""

    contender: int | None
    harness: frozenset[int]

    @classmethod
    def shared_out(cls) -> Self:
        """Take the last core for contenders and leave the rest; one core cannot be shared out."""
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < 2:
            return cls(None, frozenset(cores))
        return cls(cores[-1], frozenset(cores[:-1]))


@dataclass(frozen=True)
class Clock:
    """One look at the clocks, in seconds: the wall's, the process's CPU, all work of its core."""

    wall_s: float
    process_s: float
    core_s: float

    @classmethod
    def read(cls, pid: int, core: int | None) -> Self:
        # What clock_getcpuclockid(3) returns, which Python has for threads only.
        process_s = time.clock_gettime((~pid << 3) | 2)
        return cls(time.monotonic(), process_s, _core_ticks(core) / _TICKS_PER_S)


def _core_ticks(core: int | None) -> int:
    """Return the ticks that a core has worked for anyone, the hypervisor's other guests too."""
    if core is None:
        return 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name == f"cpu{core}":
            user, nice, system, _idle, _iowait, irq, softirq, steal, *_ = map(int, ticks)
            return user + nice + system + irq + softirq + steal
    raise ProcessLookupError(f"no cpu{core} in /proc/stat")


@dataclass(frozen=True)
class Spent:
    """What went by between two looks: the contender's CPU, and the share of its core in use."""

    wall_s: float
    cpu_s: float
    own_share: float
    others_share: float

    @classmethod
    def between(cls, start: Clock, end: Clock) -> Self:
        wall_s = end.wall_s - start.wall_s
        cpu_s = end.process_s - start.process_s
        others_s = max(0.0, end.core_s - start.core_s - cpu_s)
        return cls(wall_s, cpu_s, cpu_s / wall_s, others_s / wall_s)


def forget_settings() -> None:
    """Drop the user's own settings of a worker: what is measured has those of the benchmark."""
    for name in [name for name in os.environ if name.startswith(("ODRADEK_", "KAFKA_"))]:
        if name != "ODRADEK_DATA":  # A folder of data sets, and no setting of a worker.
            del os.environ[name]


class ContenderFailed(RuntimeError):
    """A contender ended, hung, or did not do all of its work."""


class Contender:
    """A running contender; killed at the end of the block, if it has not been stopped."""

    def __init__(
        self,
        module: Sequence[str],
        settings: Mapping[str, str],
        cores: Cores,
        python: str | Path = sys.executable,
    ) -> None:
        forget_settings()
        self._process = start_child(
            [python, "-m", *module],
            env={**os.environ, **settings, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        if cores.contender is not None:
            # In time: it has one thread until it imports something, and later ones inherit this.
            os.sched_setaffinity(self._process.pid, {cores.contender})
        self._name = " ".join(module)
        self._core = cores.contender
        self._said: list[str] = []
        self._joined = threading.Event()
        self._start: Clock | None = None
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._listener.join()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def wait_until_joined(self) -> None:
        self._joined.wait(JOIN_TIMEOUT_S)
        if self._start is None:
            self.raise_if_ended()
            raise self._failed(f"did not join its group within {JOIN_TIMEOUT_S:g} s")

    def raise_if_ended(self) -> None:
        if (status := self._process.poll()) is not None:
            raise self._failed(f"ended with status {status} before its work was done")

    def spent(self) -> Spent:
        """Return what it has spent since its join."""
        assert self._start is not None
        return Spent.between(self._start, Clock.read(self._process.pid, self._core))

    def peak_mib(self) -> float:
        """Return the most memory that it has had so far, resident, in MiB."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        (peak_kib,) = re.findall(r"^VmHWM:\s+(\d+) kB$", status, re.M)
        return int(peak_kib) / 1024

    def stop(self, status_wanted: int = 0, again_after_s: float = STOP_TIMEOUT_S) -> None:
        """Have it end in order, which is to say with the status that is wanted.

        It is told again after a while: asyncio loses a signal that comes while thousands of
        acknowledgements fill the pipe that wakes it. The worker is told once.
        """
        deadline_s = time.monotonic() + STOP_TIMEOUT_S
        status = None
        while status is None and time.monotonic() < deadline_s:
            self._process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                status = self._process.wait(again_after_s)
        if status is None:
            raise self._failed(f"did not stop within {STOP_TIMEOUT_S:g} s")
        if status != status_wanted:
            raise self._failed(f"stopped with status {status}")

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if JOINED in line and self._start is None:
                self._start = Clock.read(self._process.pid, self._core)
                self._joined.set()
            self._said.append(line.decode(errors="replace"))
        self._joined.set()  # It has ended; nobody need wait any longer.

    def _failed(self, what: str) -> ContenderFailed:
        return ContenderFailed(f"{self._name} {what}; it said:\n{''.join(self._said[-20:])}")


def stage_cpu_seconds(http_port: int) -> dict[str, float]:
    """Return the CPU seconds of the worker's own thread by stage, by its own metrics.

    Raises OSError where /metrics does not answer.
    """
    url = f"http://127.0.0.1:{http_port}/metrics"
    with urllib.request.urlopen(url, timeout=SCRAPE_TIMEOUT_S) as reply:
        text = reply.read().decode()
    form = r'^odradek_turn_stage_cpu_seconds_total\{stage="(\w+)"\} (\S+)$'
    return {stage: float(seconds) for stage, seconds in re.findall(form, text, re.M)}
