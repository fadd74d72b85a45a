"""What scoring costs: each detector once on the same events of 57 features, alone on the machine.

CPU microseconds an event in batches of 1,024: ours by onnxruntime on one thread, all outputs of
the sealed graph, preprocessing included; PyOD's by `decision_function` in its own process on one
core, on rows that are standardised already. 10,000 rows train: what looks rows up costs more with
more of them.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from bench.detectors import sets
from bench.detectors.trials import Rows, Task, Trial
from bench.model import normal_events

TRAIN_ROWS, TEST_ROWS = 10_000, 1_024


def cost_task(folder: Path, train_rows: int = TRAIN_ROWS) -> Task:
    """Return the trial: the collision events if the folder has them, else Gaussian ones."""
    real = (folder / "lhc57.npz").is_file()
    name = "lhc57" if real else "Gaussian events"
    return Task("cost", name, partial(_make, folder if real else None, name, train_rows))


def _make(folder: Path | None, name: str, train_rows: int) -> Trial:
    background, signal = _events(folder, train_rows)
    order = np.random.default_rng(0).permutation(len(background))
    train, fresh = background[order[:train_rows]], background[order[-TEST_ROWS:]]
    test = np.concatenate([fresh, signal])
    kinds = np.repeat(np.array([0, 1], np.uint8), [len(fresh), len(signal)])
    return Trial("cost", name, 0, 0, train, test, kinds)


def _events(folder: Path | None, train_rows: int) -> tuple[Rows, Rows]:
    if folder is not None:
        background, signals = sets.read_lhc57(folder)
        return background, signals["a4l"]
    events = normal_events(train_rows + TEST_ROWS, seed=0)
    return events, 3 * events[:TEST_ROWS]
