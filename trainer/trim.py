"""Dirty training data: leave out the fit rows that detectors not fitted to them find abnormal.

Anomalies among the fit rows teach every detector that they are normal, a cluster of them above all.
Asked to (`--set trim=0.1`), the trainer leaves out that share of the fit rows:

1. The norm judges each half of the fit rows, fitted to the other half: it knows no clusters, and a
   few anomalies hardly change it. Half as many again as are to be left out are suspects.
2. The chosen detectors judge each half, fitted to the other half without its suspects; those rows
   are left out that they find least normal.

Other rows stay as they are: threshold and surprises are of rows as they come, dirt and all, so that
the threshold still keeps its promise for events like them.

Nothing is trimmed unless it is asked for. The rows that look least normal may be dirt, or rare and
normal, and no statistic that was tried told the two apart: how far scores rise when suspects do
not train, and the shape of the scores' tail, differ less between clean and dirty than between
sets. With 5 % of dirt a tenth trimmed gave six of eight lost points of mean AUC back on nine
tabular sets; with clean data it cost .2 to .5, and collision events up to 3, whose rarest
backgrounds look like signals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from schemas.contract import MissingPolicy
from schemas.datafiles import Table
from schemas.errors import DataError
from trainer.checkpoint import Checkpoint
from trainer.data import Indices, Parts
from trainer.model import fit_model
from trainer.progress import say
from trainer.runtime import BATCH_ROWS
from trainer.scorer import Scorer
from trainer.settings import TrainingSettings

_SUSPECTS_PER_TRIMMED = 1.5
Flags = npt.NDArray[np.bool_]


def trimmed(
    table: Table,
    parts: Parts,
    policies: Sequence[MissingPolicy],
    settings: TrainingSettings,
    checkpoint: Checkpoint | None = None,
) -> Parts:
    """Return the parts with `settings.trim` of the fit rows moved to the trimmed ones.

    Raises:
        DataError: fewer fit rows than features would be left.
        DataError: one half of the fit rows cannot train, as where a feature is in the other alone.
        SettingsError: as `fit_model`.
    """
    if not settings.trim:
        return parts
    left, width = len(parts.fit) - round(settings.trim * len(parts.fit)), len(table.names)
    if left < width:
        raise DataError(
            f"trim={settings.trim:g} leaves {left:,} of {len(parts.fit):,} fit rows for {width:,} "
            "features; wanted no fewer than features. Nothing was trained; bring more events, or "
            "trim less"
        )
    of_norm = settings.model_copy(update={"detectors": {"norm": 1.0}})
    everything = np.ones(len(parts.fit), np.bool_)
    say(f"trimming: each half of {len(parts.fit):,} fit rows is judged by the other half")
    judges = (table, parts, policies)
    suspicion = _out_of_fold(*judges, of_norm, everything, checkpoint)
    suspects = _highest(suspicion, _SUSPECTS_PER_TRIMMED * settings.trim)
    scores = _out_of_fold(*judges, settings, ~suspects, checkpoint)
    out = _highest(scores, settings.trim)
    say(f"trimming: {int(out.sum()):,} fit rows are left out")
    return replace(parts, fit=parts.fit[~out], trimmed=parts.fit[out])


def _highest(scores: npt.NDArray[np.float32], share: float) -> Flags:
    """Mark the rows with the highest scores, so many of them."""
    flags = np.zeros(len(scores), np.bool_)
    flags[np.argsort(-scores, kind="stable")[: round(share * len(scores))]] = True
    return flags


def _out_of_fold(
    table: Table,
    parts: Parts,
    policies: Sequence[MissingPolicy],
    settings: TrainingSettings,
    trusted: Flags,
    checkpoint: Checkpoint | None,
) -> npt.NDArray[np.float32]:
    """Return a score for each fit row, by detectors fitted to the trusted rows of the other half.

    The fit rows are in random order, so that every second one is half of them.
    """
    scores = np.empty(len(parts.fit), np.float32)
    for half in (0, 1):
        judged = np.arange(len(parts.fit)) % 2 == half
        others = replace(parts, fit=parts.fit[~judged & trusted])
        try:
            model = fit_model(table, others, policies, settings, checkpoint)
        except DataError as error:
            raise DataError(
                f"to trim, detectors are fitted to one half of the fit rows and judge the other, "
                f"and a half of {len(others.fit):,} rows will not do: {error}. Nothing was sealed; "
                "without --set trim nothing is halved"
            ) from None
        scores[judged] = _scores(model.scorer, table, parts.fit[judged])
    return scores


def _scores(scorer: Scorer, table: Table, rows: Indices) -> npt.NDArray[np.float32]:
    """Return the scores of rows; one that says nothing has the lowest of all."""
    scores = np.empty(len(rows), np.float32)
    order = np.argsort(rows)  # From one end of the file to the other.
    with torch.no_grad():
        for start in range(0, len(rows), BATCH_ROWS):
            some = order[start : start + BATCH_ROWS]
            scores[some] = scorer(torch.from_numpy(table.features[rows[some]]))[0].numpy()
    return np.nan_to_num(scores, nan=-np.inf, neginf=-np.inf)
