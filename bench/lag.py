"""How far a group of workers falls behind: a simulation of partitions, workers and a bursty load.

Pure and seeded. Time goes in ticks; records are counted as a fluid, since a tick holds thousands.

- Load: `Bursts`, a rate that swings slowly about its middle and at random times jumps by a multiple
  of it. Each partition gets its fixed share.
- Workers: partition p belongs to worker p mod W, as every assignor of Kafka shares out one topic to
  within a partition. A worker takes turns of at most `turn_records`, from all its partitions in
  proportion to what waits there, and does nothing else until a turn is over. It does `rate` records
  a second; beyond one for each partition workers are idle.
- A change of W stops everybody for `rebalance_s`. That is the worst case: with the assignor of the
  worker only the partitions that move stand still.
- `Scaler`: every `interval_s` it wants lag / `lag_per_worker` workers, within its bounds. New ones
  begin `start_s` later, whatever the looks between want. When fewer were wanted for `patience_s` on
  end, as many go as none of these looks wanted.

Lag is in records, and in seconds: the age of the oldest record that waits, the worst partition's.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Bursts:
    """A load of `mean` records a second in the long run, bursts included, and what moves it.

    `swing`: the slow wave's height, as a share of its own middle, the load without bursts. A burst
    adds `factor` - 1 times that middle. Bursts last `burst_s` and come after pauses of `pause_s`,
    both exponential with these means.
    """

    mean: float
    swing: float = 0.0
    swing_period_s: float = 3600.0
    factor: float = 1.0
    burst_s: float = 60.0
    pause_s: float = 600.0

    @property
    def middle(self) -> float:
        """The mean without the bursts."""
        return self.mean / (1 + (self.factor - 1) * self.burst_s / (self.burst_s + self.pause_s))

    def rates(self, ticks: int, tick_s: float, seed: int) -> Array:
        """Return the records a second in each tick, [ticks]."""
        # A triangle, not a sine: the same to the last bit on every processor.
        phase = np.arange(ticks) * tick_s / self.swing_period_s % 1
        wave = 1 + self.swing * (1 - 4 * np.abs(phase - 0.5))
        rng = np.random.default_rng(seed)
        extra = np.zeros(ticks)
        begin = 0.0
        while True:
            begin += rng.exponential(self.pause_s)
            end = begin + rng.exponential(self.burst_s)
            if begin >= ticks * tick_s:
                break
            extra[round(begin / tick_s) : round(end / tick_s)] = self.factor - 1
            begin = end
        rates: Array = self.middle * (wave + extra)
        return rates


@dataclass(frozen=True)
class Scaler:
    """An autoscaler on lag; times in seconds, `lag_per_worker` in records."""

    lag_per_worker: float
    least: int
    most: int
    interval_s: float = 15.0
    start_s: float = 20.0
    patience_s: float = 300.0


@dataclass(frozen=True)
class Group:
    """Workers on one topic. `shares` are the partitions' parts of the load, None: equal."""

    partitions: int
    workers: int
    rate: float
    turn_records: int = 4096
    rebalance_s: float = 3.0
    shares: Sequence[float] | None = None
    scaler: Scaler | None = None


@dataclass(frozen=True)
class History:
    """What came of it, by tick: lag in records, its age in seconds, workers. Each [ticks]."""

    tick_s: float
    lag: Array
    age_s: Array
    workers: Array

    def age(self, percent: float) -> float:
        """Return a percentile over time of the age of the oldest waiting record, in seconds."""
        return float(np.percentile(self.age_s, percent))

    @property
    def late_s(self) -> float:
        """The longest time on end with more than a second of records waiting."""
        longest = current = 0
        for late in (self.age_s > 1).tolist():
            current = current + 1 if late else 0
            longest = max(longest, current)
        return longest * self.tick_s

    @property
    def worker_hours(self) -> float:
        return float(self.workers.sum()) * self.tick_s / 3600

    @property
    def changes(self) -> int:
        return int(np.count_nonzero(np.diff(self.workers)))


def simulate(group: Group, rates: Array, tick_s: float = 0.1) -> History:
    """Play a load, records a second in each tick, against a group that begins without lag."""
    even = np.full(group.partitions, 1 / group.partitions)
    shares = even if group.shares is None else np.asarray(group.shares) / sum(group.shares)
    state = _State(group)
    lag = np.zeros((len(rates), group.partitions))
    workers = np.zeros(len(rates))
    waiting = np.zeros(group.partitions)
    for tick, rate in enumerate(rates.tolist()):
        now = tick * tick_s
        waiting = waiting + shares * (rate * tick_s)
        state.scale(now, float(waiting.sum()))
        waiting = state.serve(now, waiting, tick_s)
        lag[tick], workers[tick] = waiting, state.workers
    arrived = np.cumsum(rates) * tick_s
    times = np.arange(1, len(rates) + 1) * tick_s
    age = np.zeros(len(rates))
    for partition, share in enumerate(shares.tolist()):
        done = share * arrived - lag[:, partition]
        # The record read next came when as many had come as are done now.
        came = np.interp(done, np.append(0, share * arrived), np.append(0, times))
        age = np.maximum(age, np.where(lag[:, partition] > 0, times - came, 0))
    return History(tick_s, lag.sum(axis=1), age, workers)


class _State:
    """The workers as they are now: how many, until when each is busy, and what is under way."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self.workers = group.workers
        self._paused_until = -math.inf
        self._coming: deque[tuple[float, int]] = deque()  # From when on, how many there are.
        self._fewer_since: float | None = None
        self._most_wanted = 0  # Since then.
        self._next_look = 0.0
        self._share_out()

    def scale(self, now: float, lag: float) -> None:
        """Let the autoscaler look, if it is time, and let those workers begin that are ready."""
        scaler = self._group.scaler
        if scaler is None:
            return
        while self._coming and now >= self._coming[0][0]:
            self._become(self._coming.popleft()[1], now)
        if now < self._next_look:
            return
        self._next_look += scaler.interval_s
        wanted = max(scaler.least, min(scaler.most, math.ceil(lag / scaler.lag_per_worker)))
        coming = self._coming[-1][1] if self._coming else self.workers
        if wanted > coming:
            self._coming.append((now + scaler.start_s, wanted))
        if wanted >= coming:
            self._fewer_since, self._most_wanted = None, 0
            return
        self._fewer_since = now if self._fewer_since is None else self._fewer_since
        self._most_wanted = max(self._most_wanted, wanted)
        if now - self._fewer_since >= scaler.patience_s:
            self._coming.clear()
            self._become(self._most_wanted, now)
            self._fewer_since, self._most_wanted = None, 0

    def serve(self, now: float, waiting: Array, tick_s: float) -> Array:
        """Take turns for one tick and return what still waits, by partition."""
        if now < self._paused_until:
            return waiting
        group = self._group
        own = np.bincount(self._owners, waiting, self.workers)
        self._free_s += tick_s
        # A turn that has begun ends: it may last beyond the tick, and is paid for in later ones.
        turns = np.ceil(np.maximum(self._free_s, 0) * group.rate / group.turn_records)
        done = np.minimum(own, turns * group.turn_records)
        self._free_s -= done / group.rate
        # Who has nothing to do saves no time for later.
        np.minimum(self._free_s, 0, out=self._free_s, where=done >= own)
        left = 1 - done / np.maximum(own, 1e-300)  # Nothing is done where nothing waits.
        rest: Array = waiting * left[self._owners]
        return rest

    def _become(self, workers: int, now: float) -> None:
        if workers != self.workers:
            self.workers = workers
            self._paused_until = now + self._group.rebalance_s
            self._share_out()

    def _share_out(self) -> None:
        self._owners = np.arange(self._group.partitions) % self.workers
        self._free_s = np.zeros(self.workers)
