"""How long the stages of a turn take, in wall and CPU time.

A stage may be entered within another, or within itself: a rebalance settles the turn in flight from
inside a read. What the inner one took is its own alone, so all stages together are never more than
the time that has passed. One thread.
"""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry

from worker.declared_turns import STAGE_CPU, STAGE_TIME, Stage
from worker.metric import Asked, Series


class StageTimes:
    """The metrics of it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._wall = STAGE_TIME.histogram(registry)
        self._cpu_s = dict.fromkeys(Stage, 0.0)
        # Of all stages so far: what it grows by within a stage was counted by others.
        self.counted_wall_s = self.counted_cpu_s = 0.0
        Asked(
            registry,
            (STAGE_CPU,),
            lambda: [Series(STAGE_CPU, s, (stage,)) for stage, s in self._cpu_s.items()],
        )

    def stage(self, stage: Stage) -> _Timed:
        """Return what times a stage once, in a `with`; one that fails is not counted."""
        return _Timed(stage, self)

    def took(self, stage: Stage, wall_s: float, cpu_s: float) -> None:
        """Count a stage that has taken so long by itself."""
        # A difference that rounding made negative would be a counter that falls: a restart.
        wall_s, cpu_s = max(0.0, wall_s), max(0.0, cpu_s)
        self.counted_wall_s += wall_s
        self.counted_cpu_s += cpu_s
        self._cpu_s[stage] += cpu_s
        self._wall.observe(wall_s, stage)


class _Timed:
    """A generator would take longer."""

    __slots__ = ("_cpu_before", "_stage", "_times", "_wall_before")

    def __init__(self, stage: Stage, times: StageTimes) -> None:
        self._stage = stage
        self._times = times
        self._wall_before = self._cpu_before = 0.0

    def __enter__(self) -> None:
        self._wall_before = time.perf_counter() - self._times.counted_wall_s
        self._cpu_before = time.thread_time() - self._times.counted_cpu_s

    def __exit__(self, failure: object, *_: object) -> None:
        if failure is None:
            times = self._times
            wall_s = time.perf_counter() - times.counted_wall_s - self._wall_before
            cpu_s = time.thread_time() - times.counted_cpu_s - self._cpu_before
            times.took(self._stage, wall_s, cpu_s)
