"""How well scores tell anomalies from normal events. Pure; ties are counted honestly.

All take the scores of normal events and of anomalies, both finite and at least one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.floating[Any]]
Shares = npt.NDArray[np.float64]


class RocCurve(NamedTuple):
    """The shares of both kinds that score at least each level, from (0, 0) to (1, 1); each [m]."""

    fpr: Shares
    tpr: Shares


def roc_auc(normal: Scores, anomalous: Scores) -> float:
    """Return the chance that an anomaly outscores a normal event; a tie counts one half."""
    ordered = np.sort(normal)
    below = np.searchsorted(ordered, anomalous, side="left")
    not_above = np.searchsorted(ordered, anomalous, side="right")
    return float((below + not_above).mean() / 2 / len(ordered))


def roc_curve(normal: Scores, anomalous: Scores) -> RocCurve:
    """Return the curve's point at each distinct score, the highest first."""
    levels = np.unique(np.concatenate([normal, anomalous]))[::-1]
    fpr = np.append(0.0, _at_least(normal, levels) / len(normal))
    tpr = np.append(0.0, _at_least(anomalous, levels) / len(anomalous))
    return RocCurve(fpr, tpr)


def average_precision(normal: Scores, anomalous: Scores) -> float:
    """Return the precision at each distinct score, weighted by the recall gained there.

    Events of equal score are flagged together, so their order in the file does not count.
    """
    levels = np.unique(np.concatenate([normal, anomalous]))[::-1]
    true_flags = _at_least(anomalous, levels)
    precision = true_flags / (true_flags + _at_least(normal, levels))
    gained = np.diff(true_flags, prepend=0) / len(anomalous)
    return float((precision * gained).sum())


def share_above(scores: Scores, threshold: float) -> float:
    """Return the share of events that a threshold flags."""
    # In float32, as the worker compares: a threshold is one of the scores.
    return float((scores > np.float32(threshold)).mean())


def false_alarms_at(normal: Scores, anomalous: Scores, tpr: float) -> float:
    """Return the share of normal events flagged where at least `tpr` of the anomalies are.

    The level is the highest score at which that many anomalies score at least as high.
    """
    wanted = int(np.ceil(tpr * len(anomalous) - 1e-9))
    level = np.sort(anomalous)[::-1][max(1, wanted) - 1]
    return float((normal >= level).mean())


def _at_least(scores: Scores, levels: Scores) -> npt.NDArray[np.int64]:
    """Return how many scores lie at or above each level."""
    return len(scores) - np.searchsorted(np.sort(scores), levels, side="left")
