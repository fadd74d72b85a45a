"""What runs in PyOD's environment for `bench.training`: its AutoEncoder, watched as it trains.

    python pyod_training.py ROWS.npz '{"hidden": [...], "epochs": n, "batch_size": n, "seed": n}'

Prints a JSON list of [seconds, CPU seconds, validation loss], one for each epoch. The clocks stand
still while the loss is taken. Nothing of the project is imported here.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import numpy as np
import torch
from pyod.models.auto_encoder import AutoEncoder  # type: ignore[import-not-found]


class Watched(AutoEncoder):  # type: ignore[misc]  # PyOD has no types.
    """Its own loop, with a look at the held-out rows after each epoch."""

    held_out: torch.Tensor

    def train(self, train_loader: Any) -> None:  # noqa: ANN401
        self.seen: list[tuple[float, float, float]] = []
        self.wall_s, self.cpu_s = 0.0, 0.0
        self.began = time.perf_counter(), time.process_time()
        super().train(train_loader)

    def epoch_update(self) -> None:
        self.wall_s += time.perf_counter() - self.began[0]
        self.cpu_s += time.process_time() - self.began[1]
        self.model.eval()
        with torch.no_grad():
            loss = float((self.model(self.held_out) - self.held_out).square().mean())
        self.model.train()
        self.seen.append((self.wall_s, self.cpu_s, loss))
        self.began = time.perf_counter(), time.process_time()


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    torch.set_num_threads(1)
    with np.load(sys.argv[1]) as held:
        train, held_out = held["train"], held["held_out"]
    asked = json.loads(sys.argv[2])
    detector = Watched(
        preprocessing=False,
        epoch_num=asked["epochs"],
        batch_size=asked["batch_size"],
        random_state=asked["seed"],
        hidden_neuron_list=asked["hidden"],
        hidden_activation_name="leaky_relu",
        batch_norm=False,
        dropout_rate=0.0,
        optimizer_params={},
        verbose=0,
    )
    detector.held_out = torch.from_numpy(held_out)
    detector.fit(train)
    answers.write(json.dumps(detector.seen) + "\n")


if __name__ == "__main__":
    main()
