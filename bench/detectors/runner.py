"""All detectors on all trials: from the cache, in this process, or in processes of their own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from bench.detectors import cache
from bench.detectors.figures import auc
from bench.detectors.measure import Detector, measure
from bench.detectors.sets import BadSet
from bench.detectors.trials import Failure, Outcome, Task, Trial

# Trials that wait for a free process: enough that none idles, few enough for memory.
_WAITING_PER_JOB = 2


@dataclass
class Found:
    """What was measured so far, and what was not."""

    outcomes: list[Outcome] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)


class Call(NamedTuple):
    """A detector on a trial, and the name under which its outcome is kept."""

    detector: Detector
    trial: Trial
    name: str


@dataclass(frozen=True)
class Runner:
    """Works off trials. `jobs` processes at once; 0 is this one. `say` gets a line for each.

    `processor` names the machine where the cost of scoring is to be measured; else None.
    """

    detectors: Sequence[Detector]
    jobs: int
    say: Callable[[str], None]
    folder: Path = cache.OUTCOMES
    afresh: bool = False
    processor: str | None = None

    def run(self, tasks: Sequence[Task], found: Found) -> None:
        """Measure every detector on every trial, and add what comes out to `found`."""
        began = time.monotonic()
        for outcome, cached in self._outcomes(self._calls(tasks, found, began)):
            if isinstance(outcome, Failure):
                found.failures.append(outcome)
                self.say(f"  {outcome.detector} FAILED on {outcome.trial}: {outcome.reason}")
            else:
                found.outcomes.append(outcome)
                self.say(f"  {_line(outcome)}{' (kept)' if cached else ''}")

    def _calls(self, tasks: Sequence[Task], found: Found, began: float) -> Iterator[Call]:
        """Make each trial in its turn; a detector without a seed meets the same rows once."""
        seen: set[str] = set()
        for place, task in enumerate(tasks):
            try:
                trial = task.make()
            except BadSet as error:
                found.failures.append(Failure("none", f"{task.protocol} {task.of}", str(error)))
                self.say(f"  {error}")
                continue
            self.say(
                f"[{place + 1}/{len(tasks)}, {time.monotonic() - began:,.0f} s] {trial.name}, "
                f"seed {trial.seed}: {len(trial.train):,} x {trial.train.shape[1]} train"
            )
            digest = trial.digest()
            for detector in self.detectors:
                same_rows = f"{detector.name} {trial.of} {trial.dirt_percent} {digest}"
                if detector.random or same_rows not in seen:
                    seen.add(same_rows)
                    yield Call(detector, trial, cache.key(detector, trial, digest, self.processor))

    def _outcomes(self, calls: Iterator[Call]) -> Iterator[tuple[Outcome | Failure, bool]]:
        """Yield what comes out of each call, as it comes, and whether it was kept from before."""
        timed = self.processor is not None
        pool = _pool(self.jobs) if self.jobs else None
        pending: dict[Future[Outcome | Failure], Call] = {}
        try:
            for call in calls:
                kept = None if self.afresh else cache.find(call.name, self.folder)
                if kept is not None:
                    yield kept, True
                elif pool is None:
                    yield self._kept(call, measure(call.detector, call.trial, timed)), False
                else:
                    future = pool.submit(measure, call.detector, call.trial, timed)
                    pending[future] = call
                    yield from self._completed(pending, _WAITING_PER_JOB * self.jobs)
            yield from self._completed(pending, 0)
        finally:
            if pool is not None:
                pool.shutdown(cancel_futures=True)

    def _completed(
        self, pending: dict[Future[Outcome | Failure], Call], left_max: int
    ) -> Iterator[tuple[Outcome | Failure, bool]]:
        """Yield what has come out, and wait until no more than so many are pending."""
        while len(pending) > left_max:
            done, _ = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                yield self._kept(pending.pop(future), future.result()), False

    def _kept(self, call: Call, outcome: Outcome | Failure) -> Outcome | Failure:
        if isinstance(outcome, Outcome):
            cache.keep(call.name, outcome, self.folder)
        return outcome


def _pool(jobs: int) -> ProcessPoolExecutor:
    # Spawned and not forked: torch's threads do not survive a fork.
    return ProcessPoolExecutor(jobs, mp_context=get_context("spawn"))


def _line(outcome: Outcome) -> str:
    """Return what came out, in a line."""
    figures = ", ".join(
        f"{name if len(outcome.anomalies) > 1 else 'AUC'} {100 * auc(outcome, kind):.2f}"
        for kind, name in enumerate(outcome.anomalies, start=1)
    )
    cost = "" if outcome.us_per_event is None else f", {outcome.us_per_event:.2f} us an event"
    where = f"{outcome.of} {outcome.split} seed {outcome.seed}"
    return (
        f"{outcome.detector:16} {where}: {figures}, fitted in {outcome.fit_cpu_s:.1f} CPU s{cost}"
    )
