"""Named starting points for the training settings; what is set by hand wins over them."""

from __future__ import annotations

from typing import Literal

Preset = Literal["default", "best", "dense", "seed"]

# Collision events of 19 objects, each (pT in GeV, eta, phi), in an NPZ file: features f0 to f56.
# The numbers are of simulated background: the mean pT of the objects that are there, and the
# largest eta and phi.
_SCALES = {f"f{place}": (35.65, 3.982, 3.1414)[place % 3] for place in range(57)}

# Of each preset: the settings that differ from their defaults.
PRESETS: dict[str, dict[str, object]] = {
    "default": {},
    # Wider, and more rows: some three tenths of a point of AUC for twice the cost.
    "best": {
        "detectors": {"denoiser": 3.0, "neighbours": 2.0, "norm": 2.0},
        "width": 256,
        "stored_rows": 2048,
    },
    # One autoencoder with a bottleneck: the cheapest, and no training row inside.
    "dense": {"detectors": {"autoencoder": 1.0}},
    "seed": {
        "detectors": {"autoencoder": 1.0},
        "hidden": (256, 128, 64, 32, 16),
        "bottleneck": 5,
        "activation": "leaky_relu",
        "batch_size": 128,
        "epochs": 100,
        "steps_min": 0,
        "patience": 100,
        "learning_rate": 1e-3,
        "schedule": "constant",
        # Raw: divided and nothing else, and nothing cut off. Every residual's variance is then
        # below the scorer's floor, so that all weigh alike: the score is the mean squared error.
        "transforms": _SCALES,
        "clip": 1000.0,
    },
}
