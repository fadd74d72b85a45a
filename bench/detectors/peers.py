"""PyOD's detectors, asked for scores from here: they run in a process and environment of theirs.

One process serves many requests, since PyOD takes seconds to start.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bench.detectors.pyod_side import MODULES
from bench.detectors.trials import DetectorFailed, Scores, Trial
from demo.process import start_child

NAMES = tuple(MODULES)
SLOW = frozenset({"DIF", "LUNAR"})  # Minutes for a set; the others take seconds.
SEEDLESS = frozenset({"KNN", "ECOD", "COPOD", "LOF", "OCSVM"})
BATCH_ROWS = 1024  # Of the timing: as our own.

_SCRIPT = Path(__file__).with_name("pyod_side.py")
# On one core, and not on a GPU: what it costs is compared with one thread of ours.
_ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "",
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"),
}


class Answer(NamedTuple):
    """Scores [m] of the test rows, and what fitting and scoring took."""

    scores: Scores
    fit_cpu_s: float
    us_per_event: float | None


class Peers:
    """A process of PyOD's environment, which ends with this one at the latest."""

    def __init__(self, python: Path) -> None:
        self._process = start_child(
            [python, "-W", "ignore", _SCRIPT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **_ENVIRONMENT},
        )

    def score(self, detector: str, trial: Trial, *, timed: bool) -> Answer:
        """Fit and score one trial; blocks until it is done.

        Raises:
            DetectorFailed: it broke; if its process ended, this object is of no more use.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with tempfile.TemporaryDirectory() as folder:
            rows, scores = Path(folder) / "rows.npz", Path(folder) / "scores.npy"
            train, test = trial.standardised()
            np.savez(rows, train=train, test=test)
            request = {
                "detector": detector,
                "seed": trial.seed,
                "rows": str(rows),
                "scores": str(scores),
                "batch": BATCH_ROWS if timed else 0,
            }
            try:
                self._process.stdin.write(json.dumps(request).encode() + b"\n")
                self._process.stdin.flush()
                line = self._process.stdout.readline()
            except BrokenPipeError:
                line = b""
            if not line:
                raise DetectorFailed(f"PyOD's process ended with {self._process.wait()}")
            answer = json.loads(line)
            if "failure" in answer:
                raise DetectorFailed(answer["failure"])
            return Answer(np.load(scores), answer["fit_cpu_s"], answer["us_per_event"])

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def close(self) -> None:
        """End the process: it stops at the end of its input."""
        self._process.communicate()
