"""The rows that train a model: which are usable, and the four parts that never overlap.

- `fit` rows: preprocessing and the network's weights.
- `stop` rows: when to stop, and how well each feature is reconstructed.
- `combine` rows: where several heads are weighed; empty as long as there is one.
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
from schemas.contract import MissingPolicy
from schemas.datafiles import FileOptions, Table, read_tables
from schemas.errors import DataError, SettingsError, did_you_mean
from trainer.calibrate import CalibrationPlan
from trainer.settings import EVERY
from trainer.transforms import constant_columns

Indices = npt.NDArray[np.int64]
Choice = TypeVar("Choice")

STOP_SHARE = 0.1
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


@dataclass(frozen=True)
class Parts:
    """Row numbers; no row is in two parts, and every row is in one."""

    fit: Indices
    stop: Indices
    combine: Indices
    calibrate: Indices


def load(
    paths: Sequence[Path], options: FileOptions, missing: Mapping[str, MissingPolicy]
) -> tuple[Table, tuple[MissingPolicy, ...], Quality]:
    """Return the usable rows, the policy for missing values per feature, and what was left out.

    Left out are rows that are labelled anomalous and rows that the model would not score.

    Raises:
        DataError: a file is wrong.
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
    features = table.features[normal & scorable]
    quality = Quality(
        rows_read=len(table),
        anomalies_left_out=int((~normal).sum()),
        unscorable_left_out=int((normal & ~scorable).sum()),
        rows_used=len(features),
        missing_values=int(np.isnan(features).sum()),
        repeated_rows=len(features) - len(_distinct(features)),
    )
    used = replace(table, features=features, labels=None, event_ids=None, timestamps_ms=None)
    return used, policies, quality


def split(rows: int, width: int, plan: CalibrationPlan, seed: int) -> Parts:
    """Deal `rows` rows of `width` features, shuffled by the seed, into the parts.

    Raises:
        DataError: there are fewer fit rows than features: an autoencoder then learns the rows by
            heart, and its threshold means nothing.
    """
    order = np.random.default_rng(seed).permutation(rows)
    stop_end = plan.events + max(1, round(rows * STOP_SHARE))
    calibrate, stop, fit = np.split(order, [plan.events, stop_end])
    if len(fit) < width:
        raise DataError(
            f"of {rows:,} usable row(s) {len(fit):,} are left to fit {width:,} features, once "
            f"{len(calibrate):,} calibrate and {len(stop):,} say when to stop; wanted no fewer "
            "than features. Nothing was trained; bring more normal events, or leave columns out "
            "with --drop-column"
        )
    return Parts(fit=fit, stop=stop, combine=order[:0], calibrate=calibrate)


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


def suspicious_columns(names: Sequence[str]) -> list[str]:
    """Return the features whose name says that they may be the label."""
    return [name for name in names if name.lower() in _LABEL_NAMES]


def rows_digest(table: Table) -> str:
    """Return a SHA-256 over the names and the values, in their order."""
    digest = hashlib.sha256("\x00".join(table.names).encode())
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
