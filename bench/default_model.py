"""The trainer's default models, for what they cost to serve: the trainer's own program makes them.

    python -m bench.default_model      what each costs onnxruntime, a row

The trainer looks at each feature's tails and puts the inverse hyperbolic sine before those that are
heavy. The bench's events are Gaussian, so that the default model of them has none of it. Real
events often have heavy tails: `default-heavy` is the same with the transform on every feature.

One epoch of training: the graph, and so its cost, is that of a model trained to the end.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import onnx
import onnxruntime as ort

from bench.contender import ContenderFailed
from bench.contenders.entries import ModelName
from bench.model import FLAG_RATE, normal_events, sealed_model

EVENTS, SEED = 20_000, 99
TIMEOUT_S = 300.0
DEFAULT_MODELS: dict[ModelName, tuple[str, ...]] = {
    "default": (),
    "default-heavy": ("--set", "transforms=asinh"),
}
ROWS, TURNS = 4096, 101  # Of the timing: a full turn of the worker.


def fit_default_model(name: ModelName, out: Path) -> None:
    """Fit, calibrate and seal on normal events of the bench; about ten seconds.

    Raises:
        ContenderFailed: the trainer failed, and with what words; or its graph is another than the
            name says.
    """
    with tempfile.TemporaryDirectory() as folder:
        events = Path(folder) / "normal.npz"
        np.savez(events, X=normal_events(EVENTS, SEED).astype(np.float32))
        command = [
            *(sys.executable, "-m", "trainer", "fit", str(events), "--out", str(out)),
            *("--target-flag-rate", str(FLAG_RATE)),
            *("--set", "epochs=1", "--set", "steps_min=1", *DEFAULT_MODELS[name]),
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise ContenderFailed(f"the trainer took more than {TIMEOUT_S:g} s") from None
    if done.returncode != 0:
        raise ContenderFailed(f"the trainer made no default model: {done.stderr.strip()}")
    if ("Asinh" in operations(out.read_bytes())) != (name == "default-heavy"):
        raise ContenderFailed(f"the {name} model's graph is not for the tails that its name says")


def operations(model: bytes) -> list[str]:
    """Return the operation of every node of the graph."""
    return [node.op_type for node in onnx.load_model_from_string(model).graph.node]


def us_per_row(model: bytes) -> float:
    """Return the median time of onnxruntime for a row of a full turn, on one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    rows = normal_events(ROWS, SEED).astype(np.float32)
    taken_ns = []
    for _ in range(TURNS):
        began_ns = time.thread_time_ns()
        session.run(None, {"features": rows})
        taken_ns.append(time.thread_time_ns() - began_ns)
    return median(taken_ns) / ROWS / 1000


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        models: dict[ModelName, bytes] = {"bench": sealed_model()}
        for name in DEFAULT_MODELS:
            fit_default_model(name, out := Path(folder) / f"{name}.onnx")
            models[name] = out.read_bytes()
    costs = {name: us_per_row(model) for name, model in models.items()}
    for name, model in models.items():
        count, times = len(operations(model)), costs[name] / costs["bench"]
        print(f"{name:14}{count:4} operations {costs[name]:6.2f} us a row {times:6.2f} x bench")


if __name__ == "__main__":
    main()
