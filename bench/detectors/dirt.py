"""Dirty training data: anomalies mixed among the normal rows, and what that costs.

So many anomalies as a share of the normal training rows, chosen by the seed, at most half of those
that the set has; a smaller share's are among a larger one's. The test is the same for all shares:
the anomalies that the largest takes are in none of them. So what is lost is lost by the dirt, and
not by other anomalies that are left to find.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from bench.detectors import sets
from bench.detectors.sets import Tabular
from bench.detectors.splits import halves
from bench.detectors.trials import Protocol, Task, Trial


def dirty_tasks(
    files: dict[str, Path],
    protocol: Protocol,
    seeds: Sequence[int],
    train_max: int,
    percents: Sequence[float],
) -> list[Task]:
    """Return the trials of labelled tables at each share of dirt, in percent."""

    def make(name: str, path: Path, seed: int, percent: float) -> Trial:
        held = sets.read_tabular(name, path)
        clean = halves(held, protocol, seed, train_max)
        return dirtied(clean, held, percent, max(percents))

    return [
        Task(protocol, name, partial(make, name, path, seed, percent))
        for name, path in files.items()
        for seed in seeds
        for percent in percents
    ]


def dirtied(clean: Trial, held: Tabular, percent: float, percent_max: float) -> Trial:
    """Return a trial with anomalies among its training rows."""
    anomalies = np.random.default_rng(clean.seed).permutation(held.rows[held.anomalous])

    def moved(share: float) -> int:
        return min(round(share / 100 * len(clean.train)), len(anomalies) // 2)

    normal = clean.test[clean.kinds == 0]
    left = anomalies[moved(percent_max) :]
    return replace(
        clean,
        split=clean.seed,
        train=np.concatenate([clean.train, anomalies[: moved(percent)]]),
        test=np.concatenate([normal, left]),
        kinds=np.repeat(np.array([0, 1], np.uint8), [len(normal), len(left)]),
        dirt_percent=percent,
    )


def real_percent(rows: int, rows_clean: int) -> float:
    """Return the share that was mixed in, where a set had too few anomalies for what was asked."""
    return 100 * (rows - rows_clean) / rows_clean
