"""Do contributions name the features that caused an incident?

    python -m bench.culprits [FOLDER] [--preset NAME]... [--seed N]

FOLDER (default: ODRADEK_DATA) holds streams/*.npz with train, test, label and culprits: stretches
of the test rows, and the columns, from 1, that caused each. The trainer is fitted to the training
rows as to normal events. In every row of an incident the k features of the largest contribution
are taken, k the number of culprits, and the share of true culprits among them is averaged over the
rows, then over the incidents: HitRate@100% of Su et al. (Robust anomaly detection for multivariate
time series through stochastic recurrent neural network, 2019), a row at a time.

Beside it: the k largest absolute z-scores by the training rows, and the same contributions with
the names of the features shuffled.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trainer.__main__ import main as trainer
from trainer.presets import PRESETS
from trainer.runtime import open_sealed, run

Array = npt.NDArray[np.float64]
Incident = tuple[slice, list[int]]


def incidents(written: str) -> Iterator[Incident]:
    """Yield the rows and the culprits, from 0, of each line `first-last:1,2,3`."""
    for line in written.split():
        rows, _, columns = line.partition(":")
        first, last = map(int, rows.split("-"))
        yield slice(first, last + 1), [int(column) - 1 for column in columns.split(",")]


def hit_rate(parts: Array, wanted: Sequence[Incident]) -> float:
    """Return the mean share of culprits among the largest parts [n, d] of each row."""
    rates = []
    for rows, culprits in wanted:
        largest = np.argsort(-parts[rows], axis=1, kind="stable")[:, : len(culprits)]
        rates.append(np.isin(largest, culprits).mean())
    return float(np.mean(rates))


def contributions(train: Array, test: Array, preset: str, seed: int) -> Array:
    """Return the contributions [n, d] of a model that is fitted to the training rows."""
    with tempfile.TemporaryDirectory() as folder:
        data, out = Path(folder) / "train.npz", Path(folder) / "model.onnx"
        np.savez(data, X=train.astype(np.float32))
        said = io.StringIO()
        with redirect_stdout(said), redirect_stderr(said):
            code = trainer(
                ["fit", str(data), "--out", str(out), "--preset", preset, "--set", f"seed={seed}"]
            )
        if code:
            raise SystemExit(f"the trainer ended with {code}: {said.getvalue().splitlines()[-1]}")
        return run(open_sealed(out).session, test.astype(np.float32)).contributions.astype(float)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", nargs="?", default=os.environ.get("ODRADEK_DATA"), type=Path)
    parser.add_argument("--preset", action="append", choices=[*PRESETS])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    files = sorted(options.folder.glob("streams/*.npz")) if options.folder else []
    if not files:
        print("no streams/*.npz there; name the folder, or set ODRADEK_DATA", file=sys.stderr)
        return 2
    presets = options.preset or ["default", "dense"]
    print(f"{'culprits found':14}{'incidents':>10}{'|z|':>8}{'shuffled':>10}", end="")
    print("".join(f"{preset:>10}" for preset in presets))
    for file in files:
        held = np.load(file, allow_pickle=False)
        train, test = held["train"].astype(np.float64), held["test"].astype(np.float64)
        wanted = list(incidents(str(held["culprits"])))
        spread = train.std(axis=0)
        z_scores = np.abs(test - train.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
        seen = [contributions(train, test, preset, options.seed) for preset in presets]
        order = np.random.default_rng(0)
        shuffled = np.mean(
            [hit_rate(seen[0][:, order.permutation(train.shape[1])], wanted) for _ in range(20)]
        )
        rates = [hit_rate(z_scores, wanted), shuffled, *(hit_rate(one, wanted) for one in seen)]
        print(f"{file.stem:14}{len(wanted):10}{rates[0]:8.3f}{rates[1]:10.3f}", end="")
        print("".join(f"{rate:10.3f}" for rate in rates[2:]), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
