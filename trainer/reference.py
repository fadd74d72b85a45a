"""What held-out normal events are like, feature by feature, for a worker that watches for drift.

Of the calibration rows, so that it is what the p-values are measured against as well. Each feature
has ten bins of about as many rows each, or one for each value where it has ten or fewer.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from schemas.calibration import Floats
from schemas.reference import EDGES, REFERENCE_FEATURES_MAX, Reference
from trainer.rows import rows_max
from trainer.runtime import run

# An index over so many rows is known to 0.0002: the bins, by the number of rows.
_ROWS_MAX = 65_536
# Of so many, the parts that features have in the scores are known well enough to rank them.
_RANKED_ROWS = 1_000


def drift_reference(
    session: ort.InferenceSession, features: Floats, numbers: npt.NDArray[np.int64]
) -> Reference:
    """Return the reference of the rows of these `numbers`, of all features or of as many as may be.

    `features` is the whole table, float32 [n, d]. Those with the largest parts in the scores come
    first.
    """
    most = min(len(numbers), _ROWS_MAX, rows_max(features.shape[1]))
    some = np.linspace(0, len(numbers) - 1, most).astype(np.int64)
    rows = features[np.sort(numbers[some])]
    columns = _ranked(session, rows)[:REFERENCE_FEATURES_MAX]
    edges = np.stack([_edges(rows[:, column]) for column in columns])
    return Reference.of(rows, tuple(columns.tolist()), edges)


def _ranked(session: ort.InferenceSession, rows: Floats) -> npt.NDArray[np.intp]:
    """Return the columns by their mean part in a score, the largest first."""
    some = np.linspace(0, len(rows) - 1, min(len(rows), _RANKED_ROWS)).astype(np.int64)
    parts = run(session, rows[some]).contributions.astype(np.float64)
    shares = parts / np.maximum(parts.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    return np.argsort(-shares.mean(axis=0), kind="stable")


def _edges(column: Floats) -> Floats:
    """Return the upper edges of a feature's bins but for the last, infinite where there are few."""
    values = column[~np.isnan(column)]
    distinct = np.unique(values)
    if len(distinct) == 1:
        # What was constant may change either way.
        inner = np.array([np.nextafter(distinct[0], np.float32(-np.inf)), distinct[0]])
    elif len(distinct) <= EDGES + 1:
        inner = distinct[:-1]
    else:
        deciles = np.arange(1, EDGES + 1) / (EDGES + 1)
        inner = np.unique(np.quantile(values, deciles, method="inverted_cdf"))
    edges = np.full(EDGES, np.inf, np.float32)
    edges[: len(inner)] = inner
    return edges
