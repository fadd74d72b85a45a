"""A sealed model on labelled events, scored by onnxruntime from the file itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from schemas.contract import Feature
from schemas.datafiles import FileOptions, Table, read_table, recoded
from schemas.datafiles.table import Bools
from schemas.errors import DataError
from trainer.metrics import Scores, average_precision, false_alarms_at, roc_auc, share_above
from trainer.runtime import SealedModel, run


@dataclass(frozen=True)
class Evaluation:
    """The figures; shares are 0 to 1. Events without a score count nowhere but in `unscorable`.

    `one_over_fpr` is 1 / `fpr_at_tpr`; None where not one normal event was flagged.
    """

    model: str
    digest: str
    normal_events: int
    anomalies: int
    unscorable: int
    auc: float
    average_precision: float
    threshold: float
    target_flag_rate: float
    tpr: float
    fpr: float
    at_tpr: float
    fpr_at_tpr: float
    one_over_fpr: float | None

    def text(self) -> str:
        """Return the figures for a person to read."""
        unscored = f", {self.unscorable:,} without a score" if self.unscorable else ""
        rejection = (
            f"beyond {self.normal_events:,} (no normal event was flagged)"
            if self.one_over_fpr is None
            else f"{self.one_over_fpr:,.0f}"
        )
        return (
            f"on {self.normal_events:,} normal events and {self.anomalies:,} anomalies{unscored}:\n"
            f"  AUC {self.auc:.4f}, average precision {self.average_precision:.4f}\n"
            f"  at the threshold: {self.tpr:.1%} of the anomalies and {self.fpr:.3%} of the normal "
            f"events flagged (target {self.target_flag_rate:.3%})\n"
            f"  1/FPR at TPR {self.at_tpr:g}: {rejection}"
        )


def read_labelled(path: Path, features: Sequence[Feature], options: FileOptions) -> Table:
    """Read labelled events for a model of these features.

    Raises:
        DataError: the file is wrong, has no labels, or labels of one kind only.
    """
    known = {f.name: f.categories for f in features if f.kind == "category"}
    table = recoded(read_table(path, options, features), known)
    if table.labels is None:
        raise DataError(
            f"{path} has no labels; name the column that marks anomalies with --label-column "
            "(NPZ: the array y)"
        )
    if table.labels.all() or not table.labels.any():
        kind = "anomalies" if table.labels.all() else "normal events"
        raise DataError(f"{path} holds {kind} alone; wanted both kinds, or nothing can be told")
    return table


def evaluate(model: SealedModel, table: Table, at_tpr: float) -> Evaluation:
    """Score labelled events of both kinds and sum up how well the model tells them apart.

    Raises:
        DataError: the model scores no event of one kind.
    """
    assert table.labels is not None  # noqa: S101  # `read_labelled` saw to it.
    return sum_up(model, run(model.session, table.features).score, table.labels, at_tpr)


def sum_up(model: SealedModel, scores: Scores, anomalies: Bools, at_tpr: float) -> Evaluation:
    """Sum up scores [n] that the model gave; `anomalies` [n] says which are of anomalies.

    Raises:
        DataError: there is no score of one kind.
    """
    scored = np.isfinite(scores)
    normal, anomalous = scores[scored & ~anomalies], scores[scored & anomalies]
    if not len(normal) or not len(anomalous):
        raise DataError("the model scores no event of one kind: too many features are missing")
    threshold = model.contract.threshold
    fpr_at_tpr = false_alarms_at(normal, anomalous, at_tpr)
    return Evaluation(
        model=f"{model.contract.name} {model.contract.version}",
        digest=model.digest,
        normal_events=len(normal),
        anomalies=len(anomalous),
        unscorable=int((~scored).sum()),
        auc=roc_auc(normal, anomalous),
        average_precision=average_precision(normal, anomalous),
        threshold=threshold.value,
        target_flag_rate=threshold.target_flag_rate,
        tpr=share_above(anomalous, threshold.value),
        fpr=share_above(normal, threshold.value),
        at_tpr=at_tpr,
        fpr_at_tpr=fpr_at_tpr,
        one_over_fpr=1 / fpr_at_tpr if fpr_at_tpr else None,
    )
