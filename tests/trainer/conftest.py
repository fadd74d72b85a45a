"""One tiny model, sealed once: an export costs seconds, the first in a process some fifteen."""

from __future__ import annotations

import numpy as np
import pytest

from trainer.__main__ import main
from trainer.runtime import open_sealed

NAMES = ("pt", "eta", "mass", "tail", "rare", "steady")
# 2026-11-24T14:21:00Z
EPOCH = "1795530060"
QUICK = ["--set", "epochs=3", "--set", "steps_min=30", "--set", "hidden=16"]


def normal_rows(n, seed=0):
    """Return events of two correlated features, a heavy tail, a rare flag and a constant."""
    rng = np.random.default_rng(seed)
    pt, eta = rng.normal(50, 10, n), rng.normal(size=n)
    mass = 2 * pt + rng.normal(size=n)
    rare = (rng.random(n) < 0.02).astype(float)
    rows = np.stack([pt, eta, mass, rng.standard_cauchy(n), rare, np.full(n, 7.5)], axis=1)
    rows[rng.random(rows.shape) < 0.01] = np.nan
    return rows.astype(np.float32)


def write_csv(path, rows, names=NAMES, labels=None):
    header = [*names, *(["label"] if labels is not None else [])]
    lines = [",".join(header)]
    for place, row in enumerate(rows):
        cells = ["" if np.isnan(value) else repr(float(value)) for value in row]
        lines.append(",".join([*cells, *([str(labels[place])] if labels is not None else [])]))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="session")
def normal_csv(tmp_path_factory):
    return write_csv(tmp_path_factory.mktemp("data") / "normal.csv", normal_rows(1500))


@pytest.fixture(scope="session")
def sealed_path(tmp_path_factory, normal_csv):
    """The path of a sealed tiny model."""
    out = tmp_path_factory.mktemp("sealed") / "tiny.onnx"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", EPOCH)
        assert main(["fit", str(normal_csv), "--out", str(out), *QUICK]) == 0
    return out


@pytest.fixture(scope="session")
def sealed(sealed_path):
    return open_sealed(sealed_path)
