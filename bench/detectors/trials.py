"""What a detector is given, and what it gives back.

A trial is one training and one test. It holds the rows as the set holds them; what is done to
them before (standardising, for those that do not do so themselves) is the same for every set.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.floating[Any]]
Kinds = npt.NDArray[np.uint8]
Scores = npt.NDArray[np.float64]
# Raised when `Trial.standardised` gives other numbers for the same rows: outcomes are kept by it.
SCALING = 1
Protocol = Literal["dte", "shuffled", "dean", "lhc57", "nsl-kdd", "streams", "cost"]


@dataclass(frozen=True)
class Cells:
    """The rows as they were written, for a detector that takes categories as texts.

    `train` [n, c] and `test` [m, c] are texts; `symbolic` says which columns are categories.
    """

    train: npt.NDArray[np.str_]
    test: npt.NDArray[np.str_]
    symbolic: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Trial:
    """Rows to train on [n, d] and to score [m, d], float.

    `kinds` says of each test row that it is normal (0), or an anomaly of `anomalies[kind - 1]`.
    `split` is which of several splits, `seed` the detector's own. `dirt_percent` of anomalies, by
    the number of normal rows, were asked to be among the training rows; None: it is no such trial.
    `cells` are there where some features are categories.
    """

    protocol: Protocol
    of: str
    split: int
    seed: int
    train: Rows
    test: Rows
    kinds: Kinds
    anomalies: tuple[str, ...] = ("anomaly",)
    standardise: bool = True
    dirt_percent: float | None = None
    cells: Cells | None = None

    @property
    def name(self) -> str:
        """Return its name for people."""
        dirt = "" if self.dirt_percent is None else f" with {self.dirt_percent:g} % dirt"
        return f"{self.protocol} {self.of}{dirt}, split {self.split}"

    def digest(self) -> str:
        """Return a SHA-256 over all that a detector is given, but its seed."""
        digest = hashlib.sha256(repr((SCALING, self.standardise, self.anomalies)).encode())
        for part in (self.train, self.test, self.kinds):
            digest.update(repr((part.shape, part.dtype.str)).encode())
            digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()

    def standardised(self) -> tuple[Scores, Scores]:
        """Return both parts, scaled by mean and deviation of the training rows if so wanted.

        A feature that varies no more in them than rounding does keeps its unit, as in
        scikit-learn's StandardScaler.
        """
        train, test = self.train.astype(np.float64), self.test.astype(np.float64)
        if not self.standardise:
            return train, test
        mean, deviation = train.mean(axis=0), train.std(axis=0)
        still = deviation <= len(train) * np.finfo(np.float64).eps * np.abs(mean)
        deviation = np.where(still, 1.0, deviation)
        return (train - mean) / deviation, (test - mean) / deviation


class Task(NamedTuple):
    """A trial that is made when its turn comes: a folder may hold more than memory does."""

    protocol: Protocol
    of: str
    make: Callable[[], Trial]


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a detector made of a trial; `scores` and `calibration` are little-endian float64.

    `calibration`, `threshold` and `target_flag_rate` are those of a sealed model, None for others.
    `us_per_event` is CPU time of scoring, where it was measured.
    """

    protocol: Protocol
    of: str
    split: int
    seed: int
    detector: str
    version: str
    train_rows: int
    features: int
    anomalies: tuple[str, ...]
    dirt_percent: float | None
    fit_cpu_s: float
    kinds: bytes
    scores: bytes
    calibration: bytes | None = None
    threshold: float | None = None
    target_flag_rate: float | None = None
    us_per_event: float | None = None

    def scores_of(self, kind: int) -> Scores:
        """Return the scores of the test rows of a kind, 0 for normal, that have one."""
        scores = np.frombuffer(self.scores, "<f8")
        of_kind: Scores = scores[np.frombuffer(self.kinds, np.uint8) == kind]
        return of_kind[np.isfinite(of_kind)]

    @property
    def unscored(self) -> int:
        """How many test rows have no score; they count in no figure."""
        return int((~np.isfinite(np.frombuffer(self.scores, "<f8"))).sum())

    def calibration_scores(self) -> Scores:
        """Return the scores that the threshold comes from.

        Raises:
            ValueError: the detector has no calibration.
        """
        if self.calibration is None:
            raise ValueError(f"{self.detector} has no calibration")
        return np.frombuffer(self.calibration, "<f8")


class DetectorFailed(RuntimeError):
    """A detector gave no scores; the text says why."""


class Failure(NamedTuple):
    """A detector that broke on a trial, and the reason that it gave."""

    detector: str
    trial: str
    reason: str
