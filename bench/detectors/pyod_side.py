"""What runs in PyOD's environment: a detector a request, by its own defaults.

Requests are JSON lines on standard input, answers JSON lines on standard output; rows and scores
pass through files. Nothing of the project is imported here, for nothing of it is installed.
Whatever else writes to standard output, as PyOD's progress does, goes to standard error.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import random
import statistics
import sys
import time
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

MODULES = {
    "KNN": "knn",
    "IForest": "iforest",
    "ECOD": "ecod",
    "COPOD": "copod",
    "LOF": "lof",
    "OCSVM": "ocsvm",
    "AutoEncoder": "auto_encoder",
    "DIF": "dif",
    "LUNAR": "lunar",
}
Rows = npt.NDArray[np.float64]

TURNS_MIN, TURNS_MAX, TIMING_S = 3, 101, 2.0


class Detector(Protocol):
    """What is used of PyOD."""

    def fit(self, rows: Rows) -> object: ...

    def decision_function(self, rows: Rows) -> Rows: ...


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        try:
            answer: dict[str, object] = _answer(json.loads(line))
        except Exception as error:  # noqa: BLE001  # Told to whoever asked; the next may do well.
            answer = {"failure": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _answer(request: dict[str, Any]) -> dict[str, object]:
    """Fit on `train` and score `test` of the file `rows`; write the scores to the file `scores`."""
    with np.load(request["rows"]) as held:
        train, test = held["train"], held["test"]
    detector = _detector(request["detector"], request["seed"])
    began = time.process_time()
    detector.fit(train)
    fitted = time.process_time()
    np.save(request["scores"], np.asarray(detector.decision_function(test), np.float64))
    batch = test[: request["batch"]] if request["batch"] else None
    cost = None if batch is None else _us_per_event(detector, batch)
    return {"fit_cpu_s": fitted - began, "us_per_event": cost}


def _detector(name: str, seed: int) -> Detector:
    """Return a detector of this seed. Some draw from the generators that all share."""
    torch = importlib.import_module("torch")
    torch.set_num_threads(1)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    kind = getattr(importlib.import_module(f"pyod.models.{MODULES[name]}"), name)
    takes_seed = "random_state" in inspect.signature(kind).parameters
    detector: Detector = kind(random_state=seed) if takes_seed else kind()
    return detector


def _us_per_event(detector: Detector, batch: Rows) -> float:
    """Return the median CPU time of a batch, an event: all threads of this process count."""
    taken_s: list[float] = []
    while len(taken_s) < TURNS_MIN or (len(taken_s) < TURNS_MAX and sum(taken_s) < TIMING_S):
        began = time.process_time()
        detector.decision_function(batch)
        taken_s.append(time.process_time() - began)
    return statistics.median(taken_s) / len(batch) * 1e6


if __name__ == "__main__":
    main()
