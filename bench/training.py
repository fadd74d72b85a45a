"""How long a training takes to the same validation loss: ours, PyOD's AutoEncoder, a plain loop.

    python -m bench.training [--data FOLDER] [--epochs 40] [--seeds 0,1,2] [--rows N] [--json FILE]

FOLDER (default: ODRADEK_DATA) holds lhc57.npz. All train the same layers (two networks, a table
each) with Adam, 1e-3, batches of 128 and one thread, on the same prepared rows of the background,
and are judged on the same held-out rows by the same loss, the mean squared error:

- `ours`: the loop of `odradek-trainer fit` (`trainer.fit`), with its cosine schedule, and with the
  constant rate that the others have. Its own looks at fit and stop rows are in its time.
- `PyOD`: its AutoEncoder in its environment, without batch norm, dropout and weight decay, which
  would be another network; the activation after the bottleneck is its own. The looks at the
  held-out rows are not in its time.
- `plain loop`: what a notebook has, as the seed's: torch's DataLoader over a TensorDataset, so many
  epochs. The looks are not in its time.

The loss to reach is the worst of the medians of what each reaches at its best, so that each can:
not every seed of the worst one does. Seconds are wall and CPU, medians over the seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset

from bench.contenders.environments import EnvironmentUnavailable
from bench.detectors import environment
from bench.report import machine, say, write_json
from schemas.calibration import Floats
from trainer.checkpoint import Checkpoint
from trainer.fit import fit
from trainer.network import build
from trainer.presets import PRESETS
from trainer.rows import HeldRows
from trainer.settings import TrainingSettings
from trainer.transforms import Choice, Prepared, Transforms, fit_transforms

RESULTS = Path(__file__).parent / "results"
BATCH_SIZE = 128
HELD_OUT_SHARE = 0.2
_COLUMNS = f"{'seconds':>9}{'CPU s':>8}{'epochs':>8}{'CPU s, epoch':>14}{'best loss':>11}"
_PYOD = Path(__file__).parent / "detectors" / "pyod_training.py"
_ONE_THREAD = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


class Look(NamedTuple):
    """After an epoch: the time since the training began, and the loss on held-out rows."""

    wall_s: float
    cpu_s: float
    loss: float


@dataclass(frozen=True)
class Course:
    """What all of one table train, on the same rows."""

    title: str
    hidden: tuple[int, ...]
    bottleneck: int
    train: Floats
    held_out: Floats
    epochs: int


Trainer = Callable[[Course, int], list[Look]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a table for each network, write JSON; return the exit code."""
    options = _options(arguments)
    torch.set_num_threads(1)
    try:
        python = environment.interpreter(say)
    except EnvironmentUnavailable as error:
        say(str(error))
        return 3
    trainers: dict[str, Trainer] = {
        "ours": lambda course, seed: ours(course, seed, "cosine"),
        "ours, constant rate": lambda course, seed: ours(course, seed, "constant"),
        "PyOD AutoEncoder": lambda course, seed: pyod(course, seed, python),
        "plain loop": plain_loop,
    }
    for train in trainers.values():  # The first optimiser of a process loads half of torch.
        train(courses(options.data / "lhc57.npz", epochs=1, rows_max=500)[0], 0)
    found = []
    for course in courses(options.data / "lhc57.npz", options.epochs, options.rows):
        looks = {
            name: [train(course, seed) for seed in options.seeds]
            for name, train in trainers.items()
        }
        print(table(course, looks), flush=True)
        found.append({"network": course.title, "rows": len(course.train), "looks": looks})
    asked = {"epochs": options.epochs, "seeds": options.seeds, "rows": options.rows}
    write_json(options.json, {"machine": machine(), "asked": asked, "found": found})
    return 0


def courses(path: Path, epochs: int, rows_max: int | None) -> list[Course]:
    """Return the two networks: the default of `dense` and the seed's, each on rows as it has them.

    Constants of the preparation come from the fit rows alone.
    """
    with np.load(path) as held:
        rows = held["background"].reshape(len(held["background"]), -1).astype(np.float32)
    rows = rows[np.random.default_rng(0).permutation(len(rows))[:rows_max]]
    held_out = round(len(rows) * HELD_OUT_SHARE)
    names = [f"f{place}" for place in range(rows.shape[1])]
    divided = PRESETS["seed"]["transforms"]
    assert isinstance(divided, Mapping)
    ways: dict[str, list[Choice | float]] = {
        "auto": ["auto"] * len(names),
        "divided": [float(divided[name]) for name in names],
    }
    found = []
    for way, hidden, bottleneck in (
        ("auto", (128, 64), 14),
        ("divided", (256, 128, 64, 32, 16), 5),
    ):
        transforms = Transforms(fit_transforms(rows[held_out:], names, ways[way]), 1000.0)
        prepared = transforms(torch.from_numpy(rows)).network.numpy()
        widths = "-".join(map(str, (rows.shape[1], *hidden, bottleneck)))
        title = f"{widths} mirrored, rows {'standardised' if way == 'auto' else way}"
        found.append(
            Course(title, hidden, bottleneck, prepared[held_out:], prepared[:held_out], epochs)
        )
    return found


def _settings(course: Course, seed: int, schedule: str) -> TrainingSettings:
    return TrainingSettings.model_validate(
        {
            "detectors": {"autoencoder": 1.0},
            "hidden": course.hidden,
            "bottleneck": course.bottleneck,
            "epochs": course.epochs,
            "patience": course.epochs,
            "steps_min": 0,
            "batch_size": BATCH_SIZE,
            "schedule": schedule,
            "seed": seed,
        }
    )


class _Clock:
    """Is told of our epochs and notes when."""

    def __init__(self) -> None:
        self.looks: list[Look] = []
        self._began = time.perf_counter(), time.process_time()

    def epoch_ended(self, _epoch: int, _training_loss: float, validation_loss: float) -> None:
        wall_s, cpu_s = time.perf_counter() - self._began[0], time.process_time() - self._began[1]
        self.looks.append(Look(wall_s, cpu_s, validation_loss))


def ours(course: Course, seed: int, schedule: str) -> list[Look]:
    """Train by `trainer.fit`. Its loss is an average over batches that are nearly equal."""
    settings = _settings(course, seed, schedule)
    torch.manual_seed(seed)
    network = build(settings, course.train.shape[1])
    train, held_out = (
        Prepared(rows, rows, torch.ones_like(rows))
        for rows in (torch.from_numpy(course.train), torch.from_numpy(course.held_out))
    )
    clock = _Clock()
    place = Checkpoint().training("autoencoder")
    fit(network, HeldRows(train), held_out, settings, clock, place)
    return clock.looks


def plain_loop(course: Course, seed: int) -> list[Look]:
    """Train as a notebook does."""
    torch.manual_seed(seed)
    network = build(_settings(course, seed, "constant"), course.train.shape[1])
    held_out = torch.from_numpy(course.held_out)
    loader = DataLoader(
        TensorDataset(torch.from_numpy(course.train)), batch_size=BATCH_SIZE, shuffle=True
    )
    optimizer, criterion = torch.optim.Adam(network.parameters(), lr=1e-3), torch.nn.MSELoss()
    looks: list[Look] = []
    wall_s = cpu_s = 0.0
    for _ in range(course.epochs):
        began = time.perf_counter(), time.process_time()
        network.train()
        for (batch,) in loader:
            optimizer.zero_grad()
            loss = criterion(network(batch), batch)
            loss.backward()
            optimizer.step()
        wall_s += time.perf_counter() - began[0]
        cpu_s += time.process_time() - began[1]
        network.eval()
        with torch.no_grad():
            looks.append(Look(wall_s, cpu_s, float(criterion(network(held_out), held_out))))
    return looks


def pyod(course: Course, seed: int, python: Path) -> list[Look]:
    """Train PyOD's AutoEncoder in its own environment."""
    asked = {
        "hidden": [*course.hidden, course.bottleneck],
        "epochs": course.epochs,
        "batch_size": BATCH_SIZE,
        "seed": seed,
    }
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.npz"
        np.savez(rows, train=course.train, held_out=course.held_out)
        ended = subprocess.run(
            [python, "-W", "ignore", _PYOD, rows, json.dumps(asked)],
            stdout=subprocess.PIPE,
            env={**os.environ, **_ONE_THREAD},
            check=True,
        )
    return [Look(*look) for look in json.loads(ended.stdout)]


def table(course: Course, looks: Mapping[str, Sequence[Sequence[Look]]]) -> str:
    """Return the table of one network."""
    best = {
        name: _median(min(one.loss for one in run) for run in runs) for name, runs in looks.items()
    }
    target = max(best.values())
    runs_each = len(next(iter(looks.values())))
    lines = [
        "",
        f"{course.title}; {len(course.train):,} rows, {course.epochs} epochs, {runs_each} seeds",
        f"{f'to a validation loss of {target:.5f}':34}" + _COLUMNS,
    ]
    for name, runs in looks.items():
        reached = [_first(run, target) for run in runs]
        there = [run[at] for run, at in zip(runs, reached, strict=True) if at is not None]
        epoch_s = _median(run[-1].cpu_s / len(run) for run in runs)
        never = f"  ({len(runs) - len(there)} of {len(runs)} not)" * (len(there) < len(runs))
        figures = (
            f"{_median(look.wall_s for look in there):>9.1f}"
            f"{_median(look.cpu_s for look in there):>8.1f}"
            f"{_median(at + 1 for at in reached if at is not None):>8.0f}"
            if there
            else f"{'never':>9}{'':16}"
        )
        lines.append(f"{name:34}{figures}{epoch_s:>14.2f}{best[name]:>11.5f}{never}")
    return "\n".join(lines)


def _first(run: Sequence[Look], target: float) -> int | None:
    return next((at for at, look in enumerate(run) if look.loss <= target), None)


def _median(values: Iterable[float]) -> float:
    return statistics.median(values)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    assert __doc__ is not None
    parser = argparse.ArgumentParser("bench.training", description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("ODRADEK_DATA"))
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument(
        "--seeds", type=lambda text: [int(one) for one in text.split(",")], default=[0, 1, 2]
    )
    parser.add_argument("--rows", type=int)
    parser.add_argument("--json", type=Path, default=RESULTS / "training.json")
    options = parser.parse_args(arguments)
    if options.data is None or not (options.data / "lhc57.npz").is_file():
        parser.error("wanted --data or ODRADEK_DATA, a folder that holds lhc57.npz")
    return options


if __name__ == "__main__":
    sys.exit(main())
