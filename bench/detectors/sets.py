"""The sets of a folder: which there are, and what each holds.

    FOLDER/tabular/*.npz and FOLDER/*.npz     X [n, d], y [n] with 1 for an anomaly
    FOLDER/dean/A*.npz                        x (normal), tx and ty: a split that came with them
    FOLDER/lhc57.npz                          background, a4l, lq, h0tt
    FOLDER/streams/nsl-kdd-train20.csv.gz     with nsl-kdd-fields.csv
    FOLDER/streams/*.npz                      train, test, label

Anything else is left alone. None of these has to be there.
"""

from __future__ import annotations

import csv
import gzip
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench.detectors.trials import Kinds, Rows

Bools = npt.NDArray[np.bool_]

LHC57, SIGNALS = "lhc57", ("a4l", "lq", "h0tt")
NSL_KDD = "nsl-kdd-train20"
# The sets that whoever chose the trainer's defaults could look at, labels included.
VISIBLE = frozenset(
    {
        *("thyroid", "cardio", "satimage-2", "pendigits", "mammography", "PageBlocks"),
        *("vowels", "magic.gamma", "SpamBase", "Ionosphere"),
        *(LHC57, NSL_KDD, "asd-omi-8", "asd-omi-9", "asd-omi-11"),
    }
)


class BadSet(ValueError):
    """A file is not such a set as its place says."""


@dataclass(frozen=True)
class Tabular:
    """Rows [n, d] in file order, and which of them are anomalies."""

    name: str
    rows: Rows
    anomalous: Bools


@dataclass(frozen=True)
class Split:
    """Rows to train on, rows to test on, and the kind of the latter."""

    name: str
    train: Rows
    test: Rows
    kinds: Kinds


def tabular_files(folder: Path) -> dict[str, Path]:
    """Return the labelled tables of a folder by name, the smallest first."""
    files = [*folder.glob("tabular/*.npz"), *folder.glob("*.npz")]
    files.sort(key=lambda path: path.stat().st_size)
    return {
        re.sub(r"^\d+_", "", path.stem): path for path in files if {"X", "y"} <= set(_keys(path))
    }


def dean_files(folder: Path) -> dict[str, Path]:
    return {path.stem.removeprefix("A"): path for path in sorted(folder.glob("dean/A*.npz"))}


def stream_files(folder: Path) -> dict[str, Path]:
    wanted = {"train", "test", "label"}
    files = sorted(folder.glob("streams/*.npz"))
    return {path.stem: path for path in files if wanted <= set(_keys(path))}


def rows_in(path: Path) -> int:
    """Return how many rows a labelled table has."""
    with np.load(path, allow_pickle=False) as held:
        return len(held["y"])


def read_tabular(name: str, path: Path) -> Tabular:
    """Read a labelled table.

    Raises:
        BadSet: it holds something else, or one kind of rows alone.
    """
    with np.load(path, allow_pickle=False) as held:
        rows, labels = held["X"], held["y"]
    if rows.ndim != 2 or labels.shape != (len(rows),) or rows.dtype.kind not in "iuf":
        raise BadSet(
            f"{path}: X is {rows.dtype} {rows.shape}, y is {labels.shape}; wanted numbers [n, d] "
            "and labels [n]. The set is left out"
        )
    anomalous = labels == 1
    if not (anomalous | (labels == 0)).all() or anomalous.all() or not anomalous.any():
        raise BadSet(
            f"{path}: y holds {np.unique(labels)[:5].tolist()}; wanted 0 for normal rows, 1 for "
            "anomalies, and some of both. The set is left out"
        )
    return Tabular(name, rows.astype(np.float64), anomalous)


def read_dean(name: str, path: Path) -> Split:
    """Read a split that came with a set."""
    with np.load(path, allow_pickle=False) as held:
        kinds = (held["ty"] == 1).astype(np.uint8)
        return Split(name, held["x"], held["tx"], kinds)


def read_stream(name: str, path: Path) -> Split:
    """Read a server's metrics: a stretch to train on and a later one, labelled by point."""
    with np.load(path, allow_pickle=False) as held:
        kinds = (held["label"] != 0).astype(np.uint8)
        return Split(name, held["train"], held["test"], kinds)


def read_lhc57(folder: Path) -> tuple[Rows, dict[str, Rows]]:
    """Return background and signals, every event as one row of 57 numbers."""
    with np.load(folder / "lhc57.npz", allow_pickle=False) as held:
        background = held["background"]
        flat = background.reshape(len(background), -1)
        return flat, {name: held[name].reshape(-1, flat.shape[1]) for name in SIGNALS}


def nsl_kdd_file(folder: Path) -> Path:
    return folder / "streams" / f"{NSL_KDD}.csv.gz"


def read_nsl_kdd(folder: Path) -> tuple[npt.NDArray[np.str_], Bools, Bools]:
    """Return the cells [n, 41] as text, which columns are categories, and which rows attacks."""
    with (folder / "streams" / "nsl-kdd-fields.csv").open() as fields:
        symbolic = np.array([row[1] == "symbolic" for row in csv.reader(fields)])
    with gzip.open(nsl_kdd_file(folder), "rt") as lines:
        cells = np.array(list(csv.reader(lines)))
    # Behind the fields: the label and how many of 21 classifiers got it right.
    return cells[:, : len(symbolic)], symbolic, cells[:, len(symbolic)] != "normal"


def _keys(path: Path) -> list[str]:
    with np.load(path, allow_pickle=False) as held:
        return list(held.files)
