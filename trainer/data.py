"""The rows that train a model: which are usable, and the four parts that never overlap.

- `fit` rows: preprocessing and the network's weights.
- `stop` rows: when an autoencoder stops, and how well it reconstructs each feature.
- `combine` rows: what several detectors' scores mean; none for one detector.
- `calibrate` rows: threshold and p-values. Nothing is fitted to them; the finished graph's
  tolerance is measured and verified on them, which changes no score.

Rows are shuffled by the seed first, so that a drift in the file is in every part.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from schemas.calibration import Floats
from schemas.contract import MissingPolicy, UnseenPolicy
from schemas.datafiles import FileOptions, Table, read_tables
from schemas.errors import DataError, SettingsError, did_you_mean
from trainer.calibrate import CalibrationPlan
from trainer.categories import CategoryRows, know_categories
from trainer.settings import EVERY
from trainer.transforms import constant_columns

Indices = npt.NDArray[np.int64]
Choice = TypeVar("Choice")

STOP_SHARE = 0.1
COMBINE_SHARE = 0.1
# A detector's surprise is read from them: of fewer rows its tail is a guess. Small data sets
# give up to so much of themselves for it, and no more.
COMBINE_ROWS_MIN = 50
COMBINE_SHARE_MAX = 0.15
# A column of such a name is more likely to be the answer than a feature.
_LABEL_NAMES = frozenset({"label", "labels", "y", "target", "class", "anomaly", "is_anomaly"})


@dataclass(frozen=True)
class Quality:
    """What was seen in the data and left out of it; goes into the sealed file."""

    rows_read: int
    anomalies_left_out: int
    unscorable_left_out: int
    rows_used: int
    missing_values: int
    repeated_rows: int
    categories: dict[str, CategoryRows]


@dataclass(frozen=True)
class Parts:
    """Row numbers; no row is in two parts, and every row is in one."""

    fit: Indices
    stop: Indices
    combine: Indices
    calibrate: Indices


def load(
    paths: Sequence[Path],
    options: FileOptions,
    missing: Mapping[str, MissingPolicy],
    unseen: Mapping[str, UnseenPolicy] | None = None,
) -> tuple[Table, tuple[MissingPolicy, ...], Quality]:
    """Return the usable rows, the policy for missing values per feature, and what was left out.

    Left out are rows that are labelled anomalous and rows that the model would not score.
    Categories have the codes that the model will know; `unseen` are the policies for others.

    Raises:
        DataError: a file is wrong, or a column is no category.
        SettingsError: a policy names a feature that is not there.
    """
    table = read_tables(paths, options)
    mask: MissingPolicy = "mask"
    policies = per_feature(missing, table.names, mask, "missing")
    normal = np.ones(len(table), np.bool_) if table.labels is None else ~table.labels
    absent = np.isnan(table.features)
    refusing = np.array([policy == "refuse" for policy in policies])
    scorable = ~(absent.all(axis=1) | (absent & refusing).any(axis=1))
    varying = ~constant_columns(table.features[normal & scorable])
    if varying.any():  # Else there is nothing to learn, which is said elsewhere.
        scorable &= ~absent[:, varying].all(axis=1)
    kept = table.features[normal & scorable]
    used = replace(table, features=kept, labels=None, event_ids=None, timestamps_ms=None)
    used, categories = know_categories(used, unseen_policies(used, unseen or {}))
    features = used.features
    quality = Quality(
        rows_read=len(table),
        anomalies_left_out=int((~normal).sum()),
        unscorable_left_out=int((normal & ~scorable).sum()),
        rows_used=len(features),
        missing_values=int(np.isnan(features).sum()),
        repeated_rows=len(features) - len(_distinct(features)),
        categories=categories,
    )
    return used, policies, quality


def split(
    rows: int,
    width: int,
    plan: CalibrationPlan,
    seed: int,
    *,
    stops: bool = True,
    combines: bool = False,
) -> Parts:
    """Deal `rows` rows of `width` features, shuffled by the seed, into the parts.

    `stops`: a detector stops early. `combines`: there are several detectors.

    Raises:
        DataError: there are fewer fit rows than features: an autoencoder then learns the rows by
            heart, and its threshold means nothing.
    """
    order = np.random.default_rng(seed).permutation(rows)
    stop_end = plan.events + (max(1, round(rows * STOP_SHARE)) if stops else 0)
    least = min(COMBINE_ROWS_MIN, round(rows * COMBINE_SHARE_MAX))
    combine = max(least, round(rows * COMBINE_SHARE)) if combines else 0
    calibrate, stop, combined, fit = np.split(order, [plan.events, stop_end, stop_end + combine])
    if len(fit) < width:
        raise DataError(
            f"of {rows:,} usable row(s) {len(fit):,} are left to fit {width:,} features, once "
            f"{len(calibrate):,} calibrate and {len(stop) + len(combined):,} say when to stop and "
            "how detectors go together; wanted no fewer "
            "than features. Nothing was trained; bring more normal events, or leave columns out "
            "with --drop-column"
        )
    return Parts(fit=fit, stop=stop, combine=combined, calibrate=calibrate)


def per_feature(
    choices: Mapping[str, Choice], names: Sequence[str], default: Choice, setting: str
) -> tuple[Choice, ...]:
    """Return each feature's choice: its own, else the one for every feature, else the default.

    Raises:
        SettingsError: a choice is for a feature that is not there.
    """
    for name in choices:
        if name != EVERY and name not in names:
            raise SettingsError(
                f"--set {setting}: no feature is named {name!r}{did_you_mean(name, names)}"
            )
    return tuple(choices.get(name, choices.get(EVERY, default)) for name in names)


def unseen_policies(table: Table, choices: Mapping[str, UnseenPolicy]) -> dict[str, UnseenPolicy]:
    """Return the policy for unseen texts of each feature that is a category.

    Raises:
        SettingsError: a choice is for a feature that is no category.
    """
    names = (*table.categories,)
    for name in choices:
        if name in table.names and name not in names:
            raise SettingsError(
                f"--set unseen: the feature {name!r} is a number, of which none is unseen; name it "
                f"with --category-column {name} if it is a category"
            )
    other: UnseenPolicy = "other"
    return dict(zip(names, per_feature(choices, names, other, "unseen"), strict=True))


def suspicious_columns(names: Sequence[str]) -> list[str]:
    """Return the features whose name says that they may be the label."""
    return [name for name in names if name.lower() in _LABEL_NAMES]


def rows_digest(table: Table) -> str:
    """Return a SHA-256 over the names and the values, in their order."""
    digest = hashlib.sha256("\x00".join(table.names).encode())
    for name, texts in table.categories.items():
        digest.update("\x00".join((name, *texts)).encode())
    digest.update(table.features.astype("<f4").tobytes())
    return digest.hexdigest()


def rows_in_common(first: Floats, second: Floats) -> int:
    """Return how many rows of `second` are also in `first`, value for value."""
    return int(np.isin(_as_items(second), _as_items(first)).sum())


def _distinct(features: Floats) -> npt.NDArray[np.void]:
    return np.unique(_as_items(features)) if len(features) else _as_items(features)


def _as_items(features: Floats) -> npt.NDArray[np.void]:
    """Return each row as one item of bytes, so that rows compare as a whole."""
    rows = np.ascontiguousarray(features, np.float32)
    return rows.view(np.dtype((np.void, rows.shape[1] * 4))).ravel()
