"""The trainer as a detector, by its public surface alone: `fit` as on a command line.

The file that it seals is opened as a worker would and scores with onnxruntime on one thread.
"""

from __future__ import annotations

import csv
import hashlib
import io
import tempfile
import time
from contextlib import redirect_stderr, redirect_stdout
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bench.detectors.trials import Cells, DetectorFailed, Scores, Trial
from schemas.calibration import Calibration, Floats
from schemas.contract import INPUT_NAME
from schemas.datafiles import FileOptions, read_table, recoded
from trainer.__main__ import main
from trainer.runtime import BATCH_ROWS, SealedModel, open_sealed, run

_ROOT = Path(__file__).resolve().parents[2]
_TIMING_TURNS = 101


class Fitted(NamedTuple):
    """Scores [m] of the test rows, and what the sealed file promises."""

    scores: Scores
    calibration: Scores
    threshold: float
    target_flag_rate: float
    fit_cpu_s: float
    us_per_event: float | None


def sources_version() -> str:
    """Return what tells one trainer from another: a digest over its sources and libraries."""
    digest = hashlib.sha256()
    for package in ("trainer", "schemas"):
        for path in sorted((_ROOT / package).glob("**/*.py")):
            digest.update(path.read_bytes())
    for library in ("torch", "numpy", "onnxruntime-gpu", "onnx"):
        digest.update(version(library).encode())
    return digest.hexdigest()[:12]


def fit_and_score(trial: Trial, flags: tuple[str, ...], *, texts: bool, timed: bool) -> Fitted:
    """Train on a trial's rows as they are, with these flags, and score its test rows.

    With `texts`, and where the trial has categories, both parts are CSV files that hold them so.

    Raises:
        DetectorFailed: the trainer refused; with its words.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "model.onnx"
        cells = trial.cells if texts else None
        data = _training_data(trial, cells, Path(folder))
        arguments = ["fit", *data, "--out", str(out), "--set", f"seed={trial.seed}", *flags]
        said = io.StringIO()
        began = time.process_time()
        with redirect_stdout(said), redirect_stderr(said):
            code = main(arguments)
        taken_s = time.process_time() - began
        if code:
            words = said.getvalue().strip().splitlines() or ["nothing"]
            raise DetectorFailed(f"the trainer ended with {code}: {words[-1]}")
        model = open_sealed(out)
        test = _test_rows(trial, cells, model, Path(folder))
    contract = model.contract
    return Fitted(
        scores=run(model.session, test).score.astype(np.float64),
        calibration=_scores(contract.calibration),
        threshold=contract.threshold.value,
        target_flag_rate=contract.threshold.target_flag_rate,
        fit_cpu_s=taken_s,
        us_per_event=_us_per_event(model, test[:BATCH_ROWS]) if timed else None,
    )


def _training_data(trial: Trial, cells: Cells | None, folder: Path) -> list[str]:
    """Write the training rows to a file; return the arguments that name it."""
    if cells is None:
        np.savez(folder / "train.npz", X=trial.train)
        return [str(folder / "train.npz")]
    path = _write_csv(folder / "train.csv", cells.train)
    columns = np.flatnonzero(cells.symbolic).tolist()
    return [str(path), *(part for c in columns for part in ("--category-column", _column(c)))]


def _test_rows(trial: Trial, cells: Cells | None, model: SealedModel, folder: Path) -> Floats:
    """Return the test rows as the graph takes them."""
    if cells is not None:
        path = _write_csv(folder / "test.csv", cells.test)
        features = model.contract.features
        known = {one.name: one.categories for one in features if one.kind == "category"}
        return recoded(read_table(path, FileOptions(), features), known).features
    with np.errstate(over="ignore"):  # What float32 cannot hold has no score, as in a worker.
        return trial.test.astype(np.float32)


def _write_csv(path: Path, cells: npt.NDArray[np.str_]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(map(_column, range(cells.shape[1])))
        writer.writerows(cells.tolist())
    return path


def _column(place: int) -> str:
    return f"c{place}"


def _scores(calibration: Calibration) -> Scores:
    """Return every calibration score; of very many, some as they were rounded for storage."""
    held = calibration.scores.astype(np.float64)
    if calibration.counts is None:
        return held
    return np.repeat(held, np.frombuffer(calibration.counts, "<u4"))


def _us_per_event(model: SealedModel, batch: Floats) -> float:
    """Return the median CPU time of a batch, an event: the session works on this thread alone."""
    taken_ns = []
    for _ in range(_TIMING_TURNS):
        began_ns = time.thread_time_ns()
        model.session.run(None, {INPUT_NAME: batch})
        taken_ns.append(time.thread_time_ns() - began_ns)
    return median(taken_ns) / len(batch) / 1000
