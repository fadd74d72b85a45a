"""Does the sealed file say what the network says, whatever the batch?

The file is opened as a stranger would (`trainer.runtime.open_sealed`: digest, contract, shapes,
golden rows) and scored at several batch sizes against torch, which computes the same numbers in
its own way; and against itself: each row alone, in odd batches, shuffled, among padding and
from unaligned memory. A model that is looser than its contract's tolerance is refused, and
`seal.staged` then leaves no file behind.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from torch import nn

from schemas.calibration import Calibration, Floats
from schemas.contract import (
    SCORE_SCALE_MIN,
    SCORE_TOLERANCE_MAX,
    ModelRefused,
    ScoreTolerance,
)
from trainer.runtime import Outputs, SealedModel, open_sealed, run

# What the plan promises, and what a model may fall back to; a looser one is refused.
_TOLERANCES = [1e-5, 2e-5, 5e-5, SCORE_TOLERANCE_MAX]
VERIFIED_ROWS = 1000
# The last one is the worker's largest batch by default.
BATCH_SIZES = (1, 7, 64, 1000, 4096)
_ODD_SIZES = (1, 2, 3, 5, 13, 31, 64, 65, 257)
# Of rows that have two stored rows equally near, as in tables of few values: another kernel may
# take the other one. The score is the same, the features that make up the distance are not.
_TIES_MAX = 0.02
# The expected values go through an exponential and are shown, not compared with anything.
_EXPECTED_RELATIVE = 1e-3


def score_tolerance(
    session: ort.InferenceSession,
    module: nn.Module,
    golden: Floats,
    ordinary: Floats,
    calibration: Calibration,
) -> ScoreTolerance:
    """Return the tightest tolerance that another way of computing the same keeps.

    torch stands for the other machines: its kernels add in another order. The score of a small
    or very well reconstructed event is a small difference of larger numbers, and has fewer
    digits to give; below `SCORE_SCALE_MIN` it has none. Twice what is seen is granted, for what
    the rows at hand do not show.
    """
    median = float(calibration.scores[len(calibration.scores) // 2])
    scale = max(median, SCORE_SCALE_MIN)
    rows = _rows(golden, ordinary)
    with torch.no_grad():
        wanted = module(torch.from_numpy(rows))[0].numpy().astype(np.float64)
    differences = np.abs(wanted - run(session, rows).score)
    relative_difference = np.nanmax(differences / np.maximum(np.abs(wanted), scale))
    enough = [relative for relative in _TOLERANCES if relative >= 2 * relative_difference]
    return ScoreTolerance(relative=(enough or _TOLERANCES[-1:])[0], scale=scale)


def verify(path: Path, module: nn.Module, ordinary: Floats) -> SealedModel:
    """Return the sealed file, once it has been found to agree with `module` and with itself.

    Raises:
        ModelRefused: it does not; the text says how far apart they are.
    """
    sealed = open_sealed(path)
    contract = sealed.contract
    rows = _rows(contract.golden.rows(len(contract.features)), ordinary)
    whole = run(sealed.session, rows)
    for how, scores in _recuts(sealed.session, rows):
        _agree(
            f"scored {how}, a row's score differs", whole.score, scores, contract.score_tolerance
        )
    for size in BATCH_SIZES:
        # However few rows there are, a full batch of each size is seen.
        tiled = rows if len(rows) >= size else np.resize(rows, (size, rows.shape[1]))
        seen = run(sealed.session, tiled, size)
        ties_max = _TIES_MAX if contract.holds_training_rows else 0.0
        _compare_with_torch(module, tiled, seen, size, contract.score_tolerance, ties_max)
    _check_promises(whole, rows)
    return sealed


def _rows(golden: Floats, ordinary: Floats) -> Floats:
    """Return the golden rows, then ordinary ones, 1,000 in all if there are as many."""
    return np.concatenate([golden, ordinary[: max(0, VERIFIED_ROWS - len(golden))]])


def _compare_with_torch(
    module: nn.Module,
    rows: Floats,
    seen: Outputs,
    size: int,
    tolerance: ScoreTolerance,
    ties_max: float,
) -> None:
    with torch.no_grad():
        wanted = Outputs(*(part.numpy() for part in module(torch.from_numpy(rows))))
    where = f"in batches of {size}, torch and the file differ"
    _agree(f"{where} in the score", wanted.score, seen.score, tolerance)
    # A part may be a tiny difference squared: it counts by its place in the score.
    scale = np.nan_to_num(wanted.score, nan=tolerance.scale)[:, None]
    differences = np.abs(wanted.contributions - seen.contributions)
    of_score = (differences / np.maximum(scale, tolerance.scale)).max(axis=1)
    apart = int((of_score > 10 * tolerance.relative).sum())
    if not np.isfinite(seen.contributions).all() or apart > ties_max * len(rows):
        raise ModelRefused(
            f"{where} in the contributions of {apart} of {len(rows)} rows, by up to "
            f"{of_score.max():.2g} of the score"
        )
    spread = np.abs(wanted.expected) + np.ptp(wanted.expected, axis=0) + 1e-30
    relative_difference = (np.abs(wanted.expected - seen.expected) / spread).max()
    if not np.isfinite(seen.expected).all() or relative_difference > _EXPECTED_RELATIVE:
        raise ModelRefused(f"{where} in the expected values, by {relative_difference:.2g} relative")


def _recuts(session: ort.InferenceSession, rows: Floats) -> Iterator[tuple[str, Floats]]:
    """Yield the scores of the same rows, put to the graph in other ways."""
    for size in _ODD_SIZES:
        yield f"in batches of {size}", run(session, rows, size).score
    order = np.random.default_rng(0).permutation(len(rows))
    shuffled = np.empty(len(rows), np.float32)
    shuffled[order] = run(session, rows[order]).score
    yield "in another order", shuffled
    padded = [np.concatenate([row[None], np.zeros((15, len(row)), np.float32)]) for row in rows]
    yield "among padding", np.array([run(session, batch).score[0] for batch in padded])
    yield "next to itself", run(session, np.repeat(rows, 2, axis=0)).score[::2]
    # A kernel may treat the ends of memory lines apart: shift the rows against them.
    for shift in (1, 3):
        memory = np.empty(rows.size + shift, np.float32)
        memory[shift:] = rows.ravel()
        yield "from unaligned memory", run(session, memory[shift:].reshape(rows.shape)).score


def _agree(what: str, wanted: Floats, seen: Floats, tolerance: ScoreTolerance) -> None:
    differing = tolerance.differ(wanted, seen)
    if differing.any():
        row = int(np.flatnonzero(differing)[0])
        raise ModelRefused(
            f"{what}: {int(differing.sum())} of {len(wanted)} rows, the first by "
            f"{abs(float(wanted[row]) - float(seen[row])):.3g} "
            f"({wanted[row]:g} and {seen[row]:g}); "
            f"wanted at most {tolerance.relative:g} relative"
        )


def _check_promises(outputs: Outputs, rows: Floats) -> None:
    """Check what the format promises of contributions and of rows that cannot be scored."""
    missing = np.isnan(rows)
    if not np.isnan(outputs.score[missing.all(axis=1)]).all():
        raise ModelRefused("a row without any feature has a score; wanted NaN")
    if (outputs.contributions < 0).any() or outputs.contributions[missing].any():
        raise ModelRefused("a contribution is negative, or a missing feature has one")
    scored = ~np.isnan(outputs.score)
    if not np.isfinite(outputs.score[scored]).all() or not scored.any():
        raise ModelRefused("a row's score is infinite, or no row has one")
    sums = outputs.contributions[scored].astype(np.float64).sum(axis=1)
    differences = np.abs(sums - outputs.score[scored])
    relative_difference = (differences / np.maximum(outputs.score[scored], 1e-30)).max()
    if relative_difference > 1e-5:
        raise ModelRefused(f"contributions miss the score by {relative_difference:.2g} relative")
