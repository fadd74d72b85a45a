"""The rows that train a model: which are usable, and the four parts that never overlap.

- `fit` rows: preprocessing and the network's weights.
- `stop` rows: when an autoencoder stops, and how well it reconstructs each feature.
- `combine` rows: what several detectors' scores mean; none for one detector.
- `calibrate` rows: threshold and p-values. Nothing is fitted to them; the finished graph's
  tolerance is measured and verified on them, which changes no score.

Rows are shuffled by the seed first, so that a drift in the file is in every part.

Nothing here holds the rows twice: they are looked at block by block, and those that are left out
are closed up in place, for they may be more than memory holds (`schemas.datafiles.store`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from schemas.calibration import Floats
from schemas.contract import MissingPolicy, UnseenPolicy
from schemas.datafiles import FileOptions, RowStore, Table, read_tables
from schemas.datafiles.store import BLOCK_ROWS
from schemas.datafiles.table import Bools
from schemas.errors import DataError, SettingsError, did_you_mean
from schemas.groups import GroupCodes
from trainer.calibrate import CalibrationPlan
from trainer.categories import CategoryRows, know_categories
from trainer.groups import calibrating_first
from trainer.rows import rows_max
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
# Of more than a million rows: what these parts are for is known well enough, and they are held.
# Of many columns it is fewer, by `trainer.rows`.
HELD_OUT_ROWS_MAX = 100_000
# A column of such a name is more likely to be the answer than a feature.
_LABEL_NAMES = frozenset({"label", "labels", "y", "target", "class", "anomaly", "is_anomaly"})


@dataclass(frozen=True)
class Quality:
    """What was seen in the data and left out of it; goes into the sealed file.

    `missing_rows` says in how many rows a feature is missing, of those that ever are.
    """

    rows_read: int
    anomalies_left_out: int
    unscorable_left_out: int
    rows_used: int
    missing_values: int
    missing_rows: dict[str, int]
    repeated_rows: int
    categories: dict[str, CategoryRows]


@dataclass(frozen=True)
class Parts:
    """Row numbers; no row is in two parts, and every row is in one.

    `trimmed` are left out as dirt (`trainer.trim`), where that was asked for.
    """

    fit: Indices
    stop: Indices
    combine: Indices
    calibrate: Indices
    trimmed: Indices = field(default_factory=lambda: np.empty(0, np.int64))


def load(
    paths: Sequence[Path],
    options: FileOptions,
    missing: Mapping[str, MissingPolicy],
    unseen: Mapping[str, UnseenPolicy] | None = None,
    store: RowStore | None = None,
) -> tuple[Table, tuple[MissingPolicy, ...], Quality]:
    """Return the usable rows, the policy for missing values per feature, and what was left out.

    Left out are rows that are labelled anomalous and rows that the model would not score.
    Categories have the codes that the model will know; `unseen` are the policies for others.
    The rows are where `store` puts them.

    Raises:
        DataError: a file is wrong, or a column is no category.
        SettingsError: a policy names a feature that is not there.
        OutsideError: there is no room for the rows.
    """
    table = read_tables(paths, options, store=store or RowStore())
    mask: MissingPolicy = "mask"
    policies = per_feature(missing, table.names, mask, "missing")
    normal = np.ones(len(table), np.bool_) if table.labels is None else ~table.labels
    scorable = _scorable(table.features, policies, normal)
    kept = _closed_up(table.features, normal & scorable)
    groups = table.groups and table.groups.rows(normal & scorable)
    used = replace(
        table, features=kept, groups=groups, labels=None, event_ids=None, timestamps_ms=None
    )
    used, categories = know_categories(used, unseen_policies(used, unseen or {}))
    features = used.features
    missing_rows = _missing_rows(used)
    quality = Quality(
        rows_read=len(table),
        anomalies_left_out=int((~normal).sum()),
        unscorable_left_out=int((normal & ~scorable).sum()),
        rows_used=len(features),
        missing_values=sum(missing_rows.values()),
        missing_rows=missing_rows,
        repeated_rows=len(features) - len(np.unique(_hashes(features))),
        categories=categories,
    )
    return used, policies, quality


def _missing_rows(table: Table) -> dict[str, int]:
    missing = np.zeros(len(table.names), np.int64)
    for block in _blocks(table.features):
        missing += np.isnan(block).sum(axis=0)
    return {name: int(rows) for name, rows in zip(table.names, missing, strict=True) if rows}


def _scorable(features: Floats, policies: Sequence[MissingPolicy], normal: Bools) -> Bools:
    """Return which rows the model will score, by what varies among the normal ones."""
    refusing = np.array([policy == "refuse" for policy in policies])
    scorable = np.empty(len(features), np.bool_)
    for at in _places(features):
        absent = np.isnan(features[at])
        scorable[at] = ~(absent.all(axis=1) | (absent & refusing).any(axis=1))
    varying = ~constant_columns(features, normal & scorable)
    # If none varies there is nothing to learn, which is said elsewhere; if all do, all is seen to.
    if varying.any() and not varying.all():
        for at in _places(features):
            scorable[at] &= ~np.isnan(features[at][:, varying]).all(axis=1)
    return scorable


def _closed_up(features: Floats, kept: Bools) -> Floats:
    """Return the rows that are kept, moved up in place to where others were left out."""
    if kept.all():
        return features
    end = 0
    for at in _places(features):
        block = features[at][kept[at]]
        features[end : end + len(block)] = block
        end += len(block)
    return features[:end]


def split(
    rows: int,
    width: int,
    plan: CalibrationPlan,
    seed: int,
    *,
    stops: bool = True,
    combines: bool = False,
    groups: GroupCodes | None = None,
    columns: int | None = None,
) -> Parts:
    """Deal `rows` rows of `width` features, shuffled by the seed, into the parts.

    `stops`: a detector stops early. `combines`: there are several detectors. `groups` [rows]: the
    plan is by group, and these are the rows'. `columns`: how many the features become, if more.

    Raises:
        DataError: there are fewer fit rows than features: an autoencoder then learns the rows by
            heart, and its threshold means nothing.
    """
    order = np.random.default_rng(seed).permutation(rows)
    if groups is not None and plan.groups is not None:
        order = calibrating_first(order, groups, plan.groups)
    held_out_max = min(HELD_OUT_ROWS_MAX, rows_max(columns or width))
    stop = min(max(1, round(rows * STOP_SHARE)), held_out_max) if stops else 0
    stop_end = plan.events + stop
    least = min(COMBINE_ROWS_MIN, round(rows * COMBINE_SHARE_MAX))
    combine = max(least, min(round(rows * COMBINE_SHARE), held_out_max)) if combines else 0
    calibrate, stopping, combined, fit = np.split(
        order, [plan.events, stop_end, stop_end + combine]
    )
    if len(fit) < width:
        raise DataError(
            f"of {rows:,} usable row(s) {len(fit):,} are left to fit {width:,} features, once "
            f"{len(calibrate):,} calibrate and {len(stopping) + len(combined):,} say when to stop "
            "and how detectors go together; wanted no fewer "
            "than features. Nothing was trained; bring more normal events, or leave columns out "
            "with --drop-column"
        )
    return Parts(fit=fit, stop=stopping, combine=combined, calibrate=calibrate)


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
                f"--set {setting}: no feature is named {name!r}{did_you_mean(name, names)}. "
                "Nothing was trained"
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
    for block in _blocks(table.features):
        digest.update(block.astype("<f4").tobytes())
    if table.groups is not None:
        digest.update("\x00".join(table.groups.texts).encode())
        digest.update(table.groups.codes.astype("<i4").tobytes())
    return digest.hexdigest()


def rows_in_common(first: Floats, second: Floats) -> int:
    """Return how many rows of `second` are also in `first`, value for value."""
    return int(np.isin(_hashes(second), _hashes(first)).sum())


def _hashes(features: Floats) -> npt.NDArray[np.int64]:
    """Return a hash of each row's bytes, the same for the same row.

    Of 64 bits: that two of ten million different rows share one has a chance of one in 300,000.
    """
    hashes = np.empty(len(features), np.int64)
    for at in _places(features):
        rows = np.ascontiguousarray(features[at], np.float32)
        items = rows.view(np.dtype((np.void, rows.shape[1] * 4))).ravel().tolist()
        hashes[at] = np.fromiter(map(hash, items), np.int64, len(items))
    return hashes


def _places(features: Floats) -> Iterator[slice]:
    for start in range(0, len(features), BLOCK_ROWS):
        yield slice(start, start + BLOCK_ROWS)


def _blocks(features: Floats) -> Iterator[Floats]:
    for at in _places(features):
        yield features[at]
