"""The trainer's default model, for what it costs to serve: the trainer's own program makes it.

One epoch of training: the graph, and so its cost, is that of a model trained to the end.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from bench.contender import ContenderFailed
from bench.model import FLAG_RATE, normal_events

EVENTS, SEED = 20_000, 99
TIMEOUT_S = 300.0


def fit_default_model(out: Path) -> None:
    """Fit, calibrate and seal on normal events of the bench; about ten seconds.

    Raises:
        ContenderFailed: the trainer failed, and with what words.
    """
    with tempfile.TemporaryDirectory() as folder:
        events = Path(folder) / "normal.npz"
        np.savez(events, X=normal_events(EVENTS, SEED).astype(np.float32))
        command = [
            *(sys.executable, "-m", "trainer", "fit", str(events), "--out", str(out)),
            *("--target-flag-rate", str(FLAG_RATE)),
            *("--set", "epochs=1", "--set", "steps_min=1"),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    if done.returncode != 0:
        raise ContenderFailed(f"the trainer made no default model: {done.stderr.strip()}")
