"""The protocols: how a set becomes trials. All of them train on normal rows alone.

- `dte`: normals in file order, the first half trains (rounded to even), the rest and all anomalies
  test. One split; with several seeds only the detectors differ.
- `shuffled`: the same with the normals shuffled by the seed first: another split for each seed.
- `dean`: the split that came with the set, unscaled features.
- `lhc57`: the background shuffled by the seed and dealt into five folds; each is tested once, with
  all signals, by a detector that is trained on the other four.
- `nsl-kdd`: rows shuffled by the seed; the normals of the first half train, the second half tests.
  Categories are spread into one column of 0 and 1 for each value among the training rows; a value
  that is not among them is 0 in all of them. Our trainer takes them as texts instead, unless it is
  told not to.
- `streams`: the training stretch, taken as normal, and the later one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from bench.detectors import sets
from bench.detectors.sets import LHC57, NSL_KDD, SIGNALS, Split, Tabular
from bench.detectors.trials import Cells, Kinds, Protocol, Rows, Task, Trial

Item = TypeVar("Item", bound=np.generic)

FOLDS = 5


def tabular_tasks(
    files: dict[str, Path], protocol: Protocol, seeds: Sequence[int], train_max: int
) -> list[Task]:
    """Return the trials of labelled tables; `train_max` rows train at most, 0 for no limit."""

    def make(name: str, path: Path, seed: int) -> Trial:
        return halves(sets.read_tabular(name, path), protocol, seed, train_max)

    return [
        Task(protocol, name, partial(make, name, path, seed))
        for name, path in files.items()
        for seed in seeds
    ]


def split_tasks(
    files: dict[str, Path], protocol: Protocol, seeds: Sequence[int], train_max: int
) -> list[Task]:
    """Return the trials of sets that came with a split: `dean` or `streams`."""

    def make(name: str, path: Path, seed: int) -> Trial:
        read = sets.read_dean if protocol == "dean" else sets.read_stream
        return shipped(read(name, path), protocol, seed, train_max)

    return [
        Task(protocol, name, partial(make, name, path, seed))
        for name, path in files.items()
        for seed in seeds
    ]


def lhc57_tasks(folder: Path, seeds: Sequence[int], rows_max: int | None = None) -> list[Task]:
    """Return the trials of the collision events; `rows_max` of the background, for a self-check."""

    def make(fold: int, seed: int) -> Trial:
        background, signals = sets.read_lhc57(folder)
        return folded(background[:rows_max], signals, fold, seed)

    return [
        Task("lhc57", LHC57, partial(make, fold, seed)) for seed in seeds for fold in range(FOLDS)
    ]


def nsl_kdd_tasks(folder: Path, seeds: Sequence[int], train_max: int) -> list[Task]:
    """Return the trials of the network connections."""

    def make(seed: int) -> Trial:
        return connections(*sets.read_nsl_kdd(folder), seed=seed, train_max=train_max)

    return [Task("nsl-kdd", NSL_KDD, partial(make, seed)) for seed in seeds]


def halves(held: Tabular, protocol: Protocol, seed: int, train_max: int) -> Trial:
    """Return the trial of one half of the normals against the other half and the anomalies."""
    normal, anomalous = held.rows[~held.anomalous], held.rows[held.anomalous]
    if protocol == "shuffled":
        normal = np.random.default_rng(seed).permutation(normal)
    middle = round(0.5 * len(normal))
    train = _at_most(normal[:middle], train_max, seed)
    test, kinds = _labelled(normal[middle:], [anomalous])
    split = seed if protocol == "shuffled" else 0
    return Trial(protocol, held.name, split, seed, train, test, kinds)


def shipped(held: Split, protocol: Protocol, seed: int, train_max: int) -> Trial:
    """Return the trial of a split that came with the set."""
    train = _at_most(held.train, train_max, seed)
    scaled = protocol != "dean"
    return Trial(protocol, held.name, 0, seed, train, held.test, held.kinds, standardise=scaled)


def folded(background: Rows, signals: dict[str, Rows], fold: int, seed: int) -> Trial:
    """Return the trial of one fold of the background, with all signals."""
    order = np.random.default_rng(seed).permutation(len(background))
    folds = np.array_split(order, FOLDS)
    others = np.concatenate([part for place, part in enumerate(folds) if place != fold])
    test, kinds = _labelled(background[folds[fold]], [signals[name] for name in SIGNALS])
    train = background[others]
    return Trial("lhc57", LHC57, fold, seed, train, test, kinds, anomalies=SIGNALS)


def connections(
    cells: npt.NDArray[np.str_],
    symbolic: npt.NDArray[np.bool_],
    attack: npt.NDArray[np.bool_],
    *,
    seed: int,
    train_max: int,
) -> Trial:
    """Return the trial of one half's normal connections against the other half."""
    order = np.random.default_rng(seed).permutation(len(cells))
    first, second = np.split(order, [len(order) // 2])
    training = _at_most(first[~attack[first]], train_max, seed)
    train, test = _spread(cells[training], cells[second], symbolic)
    kinds = attack[second].astype(np.uint8)
    written = Cells(cells[training], cells[second], symbolic)
    return Trial("nsl-kdd", NSL_KDD, seed, seed, train, test, kinds, cells=written)


def _spread(
    train: npt.NDArray[np.str_], test: npt.NDArray[np.str_], symbolic: npt.NDArray[np.bool_]
) -> tuple[Rows, Rows]:
    """Return the numbers as they are, then 0 and 1 for each value of each category."""
    parts: list[tuple[Rows, Rows]] = [
        (train[:, ~symbolic].astype(np.float64), test[:, ~symbolic].astype(np.float64))
    ]
    for column in np.flatnonzero(symbolic):
        values = np.unique(train[:, column])
        parts.append(
            (
                (train[:, column, None] == values).astype(np.float64),
                (test[:, column, None] == values).astype(np.float64),
            )
        )
    return np.hstack([part for part, _ in parts]), np.hstack([part for _, part in parts])


def _labelled(normal: Rows, anomalous: Sequence[Rows]) -> tuple[Rows, Kinds]:
    """Return normal rows and anomalies as one part, and the kind of each."""
    rows = [normal, *anomalous]
    kinds = [np.full(len(part), kind, np.uint8) for kind, part in enumerate(rows)]
    return np.concatenate(rows), np.concatenate(kinds)


def _at_most(rows: npt.NDArray[Item], limit: int, seed: int) -> npt.NDArray[Item]:
    """Return the rows, or a random choice of `limit` of them in their order."""
    if not limit or len(rows) <= limit:
        return rows
    chosen = np.random.default_rng(seed).choice(len(rows), limit, replace=False)
    return rows[np.sort(chosen)]
