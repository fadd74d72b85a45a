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
from schemas.contract import ModelRefused, ScoreTolerance
from trainer.runtime import Outputs, SealedModel, open_sealed, run
from trainer.seal import golden_rows

# What the plan promises, and what a model may fall back to; a looser one is refused.
_TOLERANCES = [1e-5, 2e-5, 5e-5, 1e-4]
BATCH_SIZES = (1, 7, 64, 1000)
_ODD_SIZES = (1, 2, 3, 5, 13, 31, 64, 65, 257)
# The expected values go through an exponential and are shown, not compared with anything.
_EXPECTED_RELATIVE = 1e-3


def score_tolerance(
    session: ort.InferenceSession, module: nn.Module, ordinary: Floats, calibration: Calibration
) -> ScoreTolerance:
    """Return the tightest tolerance that another way of computing the same keeps.

    torch stands for the other machines: its kernels add in another order. The score of a small
    or very well reconstructed event is a small difference of larger numbers, and has fewer
    digits to give. Twice what is seen is granted, for what the rows at hand do not show.
    """
    scale = float(calibration.scores[len(calibration.scores) // 2])
    rows = _rows(ordinary)
    with torch.no_grad():
        wanted = module(torch.from_numpy(rows))[0].numpy().astype(np.float64)
    off = np.abs(wanted - run(session, rows).score) / np.maximum(np.abs(wanted), max(scale, 1e-30))
    enough = [relative for relative in _TOLERANCES if relative >= 2 * np.nanmax(off)]
    return ScoreTolerance(relative=(enough or _TOLERANCES[-1:])[0], scale=scale)


def verify(path: Path, module: nn.Module, ordinary: Floats) -> SealedModel:
    """Return the sealed file, once it has been found to agree with `module` and with itself.

    Raises:
        ModelRefused: it does not; the text says how far off it is.
    """
    sealed = open_sealed(path)
    rows = _rows(ordinary)
    tolerance = sealed.contract.score_tolerance
    whole = run(sealed.session, rows)
    for how, scores in _recuts(sealed.session, rows):
        _agree(f"scored {how}, a row's score differs", whole.score, scores, tolerance)
    for size in BATCH_SIZES:
        seen = _in_batches(sealed.session, rows, size)
        _compare_with_torch(module, rows, seen, size, tolerance)
    _check_promises(whole, rows)
    return sealed


def _rows(ordinary: Floats) -> Floats:
    """Return the golden kinds of rows, then ordinary ones, 1,000 in all if there are as many."""
    special = golden_rows(ordinary)
    return np.concatenate([special, ordinary[: BATCH_SIZES[-1] - len(special)]])


def _in_batches(session: ort.InferenceSession, rows: Floats, size: int) -> Outputs:
    batches = [run(session, rows[start : start + size]) for start in range(0, len(rows), size)]
    return Outputs(*(np.concatenate(parts) for parts in zip(*batches, strict=True)))


def _compare_with_torch(
    module: nn.Module, rows: Floats, seen: Outputs, size: int, tolerance: ScoreTolerance
) -> None:
    with torch.no_grad():
        wanted = Outputs(*(part.numpy() for part in module(torch.from_numpy(rows))))
    where = f"in batches of {size}, torch and the file differ"
    _agree(f"{where} in the score", wanted.score, seen.score, tolerance)
    # A part may be a tiny difference squared: it counts by its place in the score.
    scale = np.nan_to_num(wanted.score, nan=tolerance.scale)[:, None]
    off = np.abs(wanted.contributions - seen.contributions) / np.maximum(scale, tolerance.scale)
    if not np.isfinite(seen.contributions).all() or off.max() > 10 * tolerance.relative:
        raise ModelRefused(f"{where} in the contributions, by {off.max():.2g} of the score")
    spread = np.abs(wanted.expected) + np.ptp(wanted.expected, axis=0) + 1e-30
    off = np.abs(wanted.expected - seen.expected) / spread
    if not np.isfinite(seen.expected).all() or off.max() > _EXPECTED_RELATIVE:
        raise ModelRefused(f"{where} in the expected values, by {off.max():.2g} relative")


def _recuts(session: ort.InferenceSession, rows: Floats) -> Iterator[tuple[str, Floats]]:
    """Yield the scores of the same rows, put to the graph in other ways."""
    for size in _ODD_SIZES:
        yield f"in batches of {size}", _in_batches(session, rows, size).score
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
            f"{abs(float(wanted[row]) - float(seen[row])):.3g} ({wanted[row]!r} and "
            f"{seen[row]!r}); wanted at most {tolerance.relative:g} relative"
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
    off = np.abs(sums - outputs.score[scored]) / np.maximum(outputs.score[scored], 1e-30)
    if off.max() > 1e-5:
        raise ModelRefused(f"contributions add up to the score only within {off.max():.2g}")
