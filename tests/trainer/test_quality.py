"""Does the default model detect? ODRADEK_DATA names the folder of data that is not ours to ship."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from trainer.__main__ import main
from trainer.metrics import false_alarms_at, roc_auc
from trainer.runtime import open_sealed, run


@pytest.fixture(scope="module")
def data_folder():
    folder = os.environ.get("ODRADEK_DATA")
    if not folder:
        pytest.skip("ODRADEK_DATA is not set: it names the folder of the quality tests' data")
    return Path(folder)


def test_the_default_tells_collision_events_apart(data_folder, tmp_path):
    held = np.load(data_folder / "lhc57.npz", allow_pickle=False)
    background = np.random.default_rng(0).permutation(held["background"])
    np.savez(tmp_path / "train.npz", X=background[:20_920])
    out = tmp_path / "model.onnx"

    assert main(["fit", str(tmp_path / "train.npz"), "--out", str(out)]) == 0

    model = open_sealed(out)
    normal = run(model.session, background[20_920:].reshape(-1, 57)).score
    for signal, auc_min in [("a4l", 0.97), ("lq", 0.94), ("h0tt", 0.83)]:
        anomalous = run(model.session, held[signal].reshape(-1, 57)).score
        assert roc_auc(normal, anomalous) > auc_min
        if signal == "a4l":
            assert 1 / max(false_alarms_at(normal, anomalous, 0.3), 1 / len(normal)) > 200
    threshold = np.float32(model.contract.threshold.value)
    # Target 0.001 of 5,230 events: 5 are expected, 17 are five deviations too many.
    assert (normal > threshold).sum() <= 17
