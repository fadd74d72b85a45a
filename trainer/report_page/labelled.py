"""Labelled events as the model scores them: all that the page says of them is computed from this.

Events go through the graph batch by batch; of their contributions only sums are kept, so that
memory does not grow with the number of events times features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from schemas.calibration import Floats
from schemas.datafiles import Table
from trainer.data import rows_digest
from trainer.evaluate import Evaluation, sum_up
from trainer.groups import codes_of
from trainer.metrics import Shares
from trainer.runtime import BATCH_ROWS, SealedModel, run

# The detected share at which false alarms are given too, as `evaluate` has it by default.
_AT_TPR = 0.3


@dataclass(frozen=True)
class Labelled:
    """Finite scores of both kinds [n], and the mean share that each feature has of them [d].

    `rows_seen` is how many of the rows trained or calibrated the model; None: nobody knows.
    """

    source: str
    rows_sha256: str
    normal: Floats
    anomalous: Floats
    normal_shares: Shares
    anomalous_shares: Shares
    evaluation: Evaluation
    rows_seen: int | None


def score_labelled(
    model: SealedModel, table: Table, source: str, rows_seen: int | None = None
) -> Labelled:
    """Score events of both kinds; `source` is what the page calls them.

    Raises:
        DataError: the model scores no event of one kind.
    """
    assert table.labels is not None  # noqa: S101  # `read_labelled` saw to it.
    scores = np.empty(len(table), np.float32)
    sums = np.zeros((2, len(table.names)))
    for start in range(0, len(table), BATCH_ROWS):
        batch = slice(start, start + BATCH_ROWS)
        outputs = run(model.session, table.features[batch])
        scores[batch] = outputs.score
        for kind in (0, 1):
            # A share of a score of zero says nothing.
            rows = (table.labels[batch] == kind) & (outputs.score > 0)
            sums[kind] += (
                outputs.contributions[rows].astype(np.float64) / outputs.score[rows, None]
            ).sum(axis=0)
    scored = np.isfinite(scores)
    return Labelled(
        source=source,
        rows_sha256=rows_digest(table),
        normal=scores[scored & ~table.labels],
        anomalous=scores[scored & table.labels],
        normal_shares=_normalised(sums[0]),
        anomalous_shares=_normalised(sums[1]),
        evaluation=sum_up(model, scores, table.labels, _AT_TPR, codes_of(model.contract, table)),
        rows_seen=rows_seen,
    )


def _normalised(sums: Shares) -> Shares:
    total = sums.sum()
    shares: Shares = sums / total if total else sums
    return shares
