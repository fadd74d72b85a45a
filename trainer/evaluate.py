"""A sealed model on labelled events, scored by onnxruntime from the file itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from schemas.calibration import Floats
from schemas.contract import Feature
from schemas.datafiles import FileOptions, Table, read_table, recoded
from schemas.datafiles.table import Bools
from schemas.errors import DataError
from schemas.groups import GroupCodes
from trainer.group_rates import GroupRate, flags, furthest_off_first, rates_by_group
from trainer.groups import codes_of
from trainer.metrics import average_precision, false_alarms_at, roc_auc
from trainer.runtime import SealedModel, run

_GROUPS_SHOWN = 10


@dataclass(frozen=True)
class Evaluation:
    """The figures; shares are 0 to 1. Events without a score count nowhere but in `unscorable`.

    Of a model with groups, `threshold` is the pooled one, and `tpr` and `fpr` are by each group's.

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
    groups: tuple[GroupRate, ...] = ()

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
            f"{self._by_group()}"
        )

    def _by_group(self) -> str:
        """Return what became of the rate in the groups that are the furthest off."""
        if not self.groups:
            return ""
        promised = [group for group in self.groups if group.low is not None]
        inside = sum(group.inside for group in promised)
        furthest = furthest_off_first(self.groups, self.target_flag_rate)[:_GROUPS_SHOWN]
        shown = "".join(f"\n    {group.text()}" for group in furthest)
        return (
            f"\n  by group: {inside:,} of {len(promised):,} within what chance explains (99%)"
            f"{shown}"
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
    scores = run(model.session, table.features).score
    return sum_up(model, scores, table.labels, at_tpr, codes_of(model.contract, table))


def sum_up(
    model: SealedModel,
    scores: Floats,
    anomalies: Bools,
    at_tpr: float,
    codes: GroupCodes | None = None,
) -> Evaluation:
    """Sum up scores [n] that the model gave; `anomalies` [n] says which are of anomalies.

    `codes` [n] are the events' groups, if the model has any.

    Raises:
        DataError: there is no score of one kind.
    """
    scored = np.isfinite(scores)
    normal, anomalous = scores[scored & ~anomalies], scores[scored & anomalies]
    if not len(normal) or not len(anomalous):
        raise DataError("the model scores no event of one kind: too many features are missing")
    threshold = model.contract.threshold
    fpr_at_tpr = false_alarms_at(normal, anomalous, at_tpr)
    flagged = flags(model.contract, scores, codes)
    quiet = scored & ~anomalies
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
        tpr=float(flagged[scored & anomalies].mean()),
        fpr=float(flagged[quiet].mean()),
        at_tpr=at_tpr,
        fpr_at_tpr=fpr_at_tpr,
        one_over_fpr=1 / fpr_at_tpr if fpr_at_tpr else None,
        groups=()
        if codes is None
        else tuple(rates_by_group(model.contract, scores[quiet], codes[quiet])),
    )
