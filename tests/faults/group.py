"""The group under fire: a few worker processes, started again when they end, as an orchestrator
would.

A worker that ends by itself, unasked, is remembered in `exits`: a fault may allow that, or not.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from demo.worker_process import WorkerProcess

WATCH_S = 0.05
RESTART_AFTER_S = 0.3
EXPELLED = "Lost partitions"  # What a worker says when the group went on without it.


class Exit(NamedTuple):
    """A worker that ended unasked."""

    worker: int
    code: int | None
    at: float
    last_words: str


class Stop(NamedTuple):
    """A stop that was asked for by SIGTERM."""

    code: int | None
    seconds: float


class Group:
    """`size` workers of one consumer group, each with settings and a log of its own."""

    def __init__(
        self, size: int, settings: Mapping[str, str], folder: Path, *, static_ids: bool = False
    ) -> None:
        self.exits: list[Exit] = []
        self.restarts = 0
        self._settings = dict(settings)
        self._folder = folder
        self._static_ids = static_ids
        self._workers: list[WorkerProcess] = []
        self._watched: set[int] = set()  # Those that are to run, and are started again.
        self._frozen: set[int] = set()
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="group", daemon=True)
        for _ in range(size):
            self.add()
        self._thread.start()

    def add(self) -> int:
        """Start one more worker; return its place."""
        with self._lock:
            place = len(self._workers)
            settings = dict(self._settings)
            if self._static_ids:
                settings["KAFKA_CONSUMER_GROUP_INSTANCE_ID"] = f"worker-{place}"
            self._workers.append(WorkerProcess(settings, self._folder / f"worker-{place}.log"))
            self._workers[place].start()
            self._watched.add(place)
            return place

    def pick(self, rng: random.Random, *, ready: bool = False) -> int | None:
        """Return a running worker's place; with `ready`, one whose /readyz says so."""
        with self._lock:
            places = [
                place
                for place in sorted(self._watched - self._frozen)
                if self._workers[place].running and (not ready or self._workers[place]._is_ready())
            ]
        return rng.choice(places) if places else None

    def wait_until_ready(self) -> None:
        for place in sorted(self._watched):
            self._workers[place].wait_until_ready()

    def wait_for(self, place: int) -> None:
        """Wait until this worker is ready."""
        self._workers[place].wait_until_ready()

    def kill(self, place: int) -> None:
        """kill -9; it is started again a moment later."""
        self._workers[place].kill()

    def stop(self, place: int, *, again: bool = True) -> Stop:
        """SIGTERM, and wait for the end; it is started again unless told otherwise."""
        with self._lock:
            self._watched.discard(place)
        started = time.monotonic()
        code = self._workers[place].stop()
        stopped = Stop(code, time.monotonic() - started)
        if again and not self._ended.is_set():
            with self._lock:
                self._workers[place].start()
                self._watched.add(place)
        return stopped

    def freeze(self, place: int) -> None:
        """SIGSTOP: it holds its connections and answers nobody."""
        self._frozen.add(place)
        self._signal(place, signal.SIGSTOP)

    def thaw(self, place: int) -> None:
        self._signal(place, signal.SIGCONT)
        self._frozen.discard(place)

    def pid(self, place: int) -> int:
        pid = self._workers[place].pid
        assert pid is not None
        return pid

    def logs(self) -> str:
        """All that the workers have said."""
        return "\n".join(
            worker.log.read_text(errors="replace")
            for worker in self._workers
            if worker.log.exists()
        )

    def expulsions(self) -> int:
        """How often a worker was expelled from the group so far."""
        return self.logs().count(EXPELLED)

    def stop_all(self) -> list[Stop]:
        """End the group in order."""
        self._ended.set()
        self._thread.join()
        return [self.stop(place, again=False) for place in sorted(self._watched)]

    def kill_all(self) -> None:
        """Leave no process behind."""
        self._ended.set()
        for worker in self._workers:
            worker.kill()

    def _signal(self, place: int, number: int) -> None:
        if self._workers[place].running:
            os.kill(self.pid(place), number)

    def _watch(self) -> None:
        while not self._ended.wait(WATCH_S):
            with self._lock:
                for place in sorted(self._watched):
                    worker = self._workers[place]
                    if not worker.running:
                        self._note_exit(place, worker)
                        self._ended.wait(RESTART_AFTER_S)
                        if not self._ended.is_set():
                            self.restarts += 1
                            worker.start()

    def _note_exit(self, place: int, worker: WorkerProcess) -> None:
        code = worker.wait()
        if code != -signal.SIGKILL:
            words = worker.log.read_text(errors="replace").splitlines()[-3:]
            self.exits.append(Exit(place, code, time.monotonic(), " | ".join(words)))
