"""Calibration by group: which groups have a threshold of their own, and of which events.

A group of enough rows calibrates on rows of its own, as many as use the whole rate, so that its
rate is neither above the target nor far below it. All other rows, those that name no group among
them, calibrate together, the pooled threshold, if they are enough; then the rate holds among them
taken together. If they are too few, the pooled calibration is of all calibration events, and the
rate that it gives to events of no known group is not promised.

What is exchangeable. Rows are dealt at random within each group, so calibration and fresh events
of a group are. Which groups are large enough is decided by how many rows they have, and by no
score. For the pooled ones that leaves one inexactness: a fresh event that would just have brought
its group over the limit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from msgspec import UNSET, UnsetType

from schemas.calibration import Calibration, Floats
from schemas.contract import FORMAT_VERSION, GROUPED_FORMAT_VERSION, Contract, Threshold
from schemas.datafiles import Table
from schemas.datafiles.groups import NO_GROUP, RowGroups
from schemas.errors import DataError, SettingsError
from schemas.event import EventLayout, Path
from schemas.groups import GROUPS_MAX, Group, GroupCodes, Groups, GroupSource
from trainer.calibrate import (
    CALIBRATE_SHARE,
    CALIBRATE_SHARE_MAX,
    DEFAULT_FLAG_RATES,
    CalibrationPlan,
    GroupPlan,
    calibrate,
    events_in_full,
    events_needed,
    plan_calibration,
    rows_needed,
)

# Of a rate that nobody asked for: that of a larger part of the events than that are promised it by
# their own group.
OWN_ROWS_SHARE_MIN = 0.5


@dataclass(frozen=True)
class GroupPlace:
    """What the groups are called, and where a record says its own: as `schemas.groups.Groups`."""

    name: str
    source: GroupSource
    path: Path = ()

    def check(self, layout: EventLayout, table: Table) -> None:
        """Check that it is a place of its own.

        Raises:
            SettingsError: something else stands there, or it is a number.
        """
        below = (layout.features + path for path in table.paths)
        others = {layout.event_id, layout.timestamp, layout.features, *below}
        if self.source == "event" and self.path in others:
            raise SettingsError(
                f"--group-by {self.name}: the group would stand at {'.'.join(self.path)}, where an "
                "event has something else. Say where it stands with --group-path, or that it is "
                f"the record's key with --group-from key; or name it with --category-column "
                f"{self.name} if it is also a feature"
            )


def rows_by_group(table: Table, place: GroupPlace) -> RowGroups:
    """Return the group of each row of a table that was read for groups of this place."""
    if place.source == "feature":
        return _by_category(table, place.name)
    assert table.groups is not None  # noqa: S101  # `FileOptions.group` saw to it.
    return table.groups


def codes_of(contract: Contract, table: Table) -> GroupCodes | None:
    """Return the code of each row's group, as the contract has them; None where it has none."""
    groups = contract.groups
    if groups is UNSET:
        return None
    return rows_by_group(table, GroupPlace(groups.name, groups.source)).recoded(groups.texts)


def _by_category(table: Table, name: str) -> RowGroups:
    texts = table.categories[name]
    column = table.features[:, table.names.index(name)]
    # An unseen text has the code behind the last.
    known = np.isfinite(column) & (column < len(texts))
    return RowGroups(np.where(known, column, NO_GROUP).astype(np.int32), texts)


def plan_by_group(groups: RowGroups, name: str, requested: float | None) -> CalibrationPlan:
    """Choose the rate, the groups with a threshold of their own, and how many rows calibrate.

    With no rate `requested`, the smallest of the ladder that groups with half of the rows can
    support by themselves.

    Raises:
        SettingsError, DataError: no group can support the rate, or too few can support any.
    """
    counts = groups.counts()
    rows, texts = counts[:-1], groups.texts
    for rate in DEFAULT_FLAG_RATES if requested is None else (requested,):
        able = np.flatnonzero([_supports(count, rate) for count in rows.tolist()])
        # Beyond the most that there may be, those with most rows; in the order of their texts.
        largest = able[np.argsort(-rows[able], kind="stable")][:GROUPS_MAX]
        own = sorted(largest.tolist(), key=texts.__getitem__)
        enough = OWN_ROWS_SHARE_MIN * counts.sum() if requested is None else 1
        if own and rows[own].sum() >= enough:
            others = int(counts.sum() - rows[own].sum())
            of_each = [*rows[own].tolist(), others]
            events = [_events(count, rate) for count in of_each]
            shared = int((rows > 0).sum()) - len(own)
            kept = tuple(texts[place] for place in own)
            plan = GroupPlan(kept, tuple(events), tuple(of_each), shared)
            return CalibrationPlan(rate, requested, sum(events), groups=plan)
    raise _too_small(groups, name, requested)


def calibrating_first(
    order: npt.NDArray[np.int64], codes: GroupCodes, plan: GroupPlan
) -> npt.NDArray[np.int64]:
    """Return the rows in this order, but those first that calibrate: of each group, its first.

    `codes` [n] are the rows' groups, by their place in the plan.
    """
    owners = codes[order]
    by_owner = np.argsort(owners, kind="stable")
    starts = np.searchsorted(owners[by_owner], np.arange(len(plan.events)))
    rank = np.empty(len(order), np.int64)
    rank[by_owner] = np.arange(len(order)) - starts[owners[by_owner]]
    chosen = rank < np.array(plan.events)[owners]
    return np.concatenate([order[chosen], order[~chosen]])


def calibrate_by_group(
    scores: Floats, codes: GroupCodes, plan: CalibrationPlan, place: GroupPlace
) -> tuple[Calibration, Threshold, Groups]:
    """Return the pooled calibration and threshold, and those of the groups.

    `scores` [n] are the graph's of the calibration rows, NaN where it has none; `codes` [n] their
    groups, by their place in the plan. A group of which too few rows have a score is pooled.

    Raises:
        DataError: no group has enough events with a score.
    """
    assert plan.groups is not None  # noqa: S101  # `plan_by_group` made it.
    rate, needed = plan.target_flag_rate, events_needed(plan.target_flag_rate)
    scored = np.isfinite(scores)
    scores, codes = scores[scored], codes[scored]
    ordered = scores[np.argsort(codes, kind="stable")]
    ends = np.cumsum(np.bincount(codes, minlength=len(plan.groups.events)))[:-1]
    *own, others = np.split(ordered, ends)
    members, pool = [], [others]
    for text, of_group in zip(plan.groups.texts, own, strict=True):
        if len(of_group) < needed:
            pool.append(of_group)
            continue
        calibration = Calibration.of(of_group)
        threshold = calibration.threshold(rate)
        members.append(Group(text=text, threshold=threshold, calibration=calibration))
    if not members:
        raise DataError(
            f"no group of {place.name!r} has {needed:,} calibration events with a score; the "
            "features of the others are constant among the fit rows. Nothing was sealed"
        )
    rest = np.concatenate(pool)
    pooled, threshold_of_all = calibrate(rest if len(rest) >= needed else scores, plan)
    groups = Groups(
        name=place.name,
        source=place.source,
        path=place.path,
        pooled="others" if len(rest) >= needed else "all",
        members=tuple(members),
    )
    return pooled, threshold_of_all, groups


def planned(
    table: Table, place: GroupPlace | None, requested: float | None, *, extrapolate: bool
) -> tuple[CalibrationPlan, GroupCodes | None]:
    """Plan the calibration, by group where there is a place of groups; and say each row's group.

    Raises:
        SettingsError, DataError: as `plan_calibration` and `plan_by_group`.
    """
    if place is None:
        return plan_calibration(len(table), requested, extrapolate=extrapolate), None
    if extrapolate:
        raise SettingsError(
            "--extrapolate does not go with --group-by: a tail is fitted to the scores of all "
            "events. Ask for a rate that the groups' own events bear out"
        )
    groups = rows_by_group(table, place)
    plan = plan_by_group(groups, place.name, requested)
    return plan, groups.recoded(plan.groups.texts if plan.groups else ())


def calibrated(
    scores: Floats,
    plan: CalibrationPlan,
    place: GroupPlace | None,
    codes: GroupCodes | None,
    rows: npt.NDArray[np.int64],
) -> tuple[Calibration, Threshold, Groups | UnsetType]:
    """Return what judges all events, and what judges those of groups.

    `scores` are those of `rows`; `codes` are of all rows, as in `planned`.

    Raises:
        DataError: as `calibrate` and `calibrate_by_group`.
    """
    if place is None or codes is None:
        return (*calibrate(scores, plan), UNSET)
    return calibrate_by_group(scores, codes[rows], plan, place)


def format_version(groups: Groups | UnsetType) -> int:
    """Return the version of the sealed format that holds these groups."""
    return FORMAT_VERSION if groups is UNSET else GROUPED_FORMAT_VERSION


def _supports(rows: int, rate: float) -> bool:
    return events_needed(rate) <= math.floor(rows * CALIBRATE_SHARE_MAX)


def _events(rows: int, rate: float) -> int:
    """Return how many of so many rows calibrate; if they are too few for the rate, for the pool."""
    usual = math.floor(rows * CALIBRATE_SHARE)
    return events_in_full(rate, usual) if _supports(rows, rate) else usual


def _too_small(groups: RowGroups, name: str, requested: float | None) -> SettingsError | DataError:
    counts = groups.counts()
    rows, total = counts[:-1], int(counts.sum())
    largest = int(rows.max(initial=0))
    rate = DEFAULT_FLAG_RATES[-1] if requested is None else requested
    saw = (
        f"{int((rows > 0).sum()):,} group(s) in {total:,} usable rows, {int(counts[-1]):,} of them "
        f"without one; the largest has {largest:,} rows, and a flag rate of {rate:g} takes "
        f"{rows_needed(rate):,} in a group"
    )
    if requested is None:
        return DataError(
            f"--group-by {name}: {saw}, in groups with half of all rows. Nothing was trained; name "
            "a coarser group, bring more events, or ask for a --target-flag-rate that fewer groups "
            "bear out"
        )
    able = [f"{rate:g}" for rate in DEFAULT_FLAG_RATES if _supports(largest, rate)]
    way_out = f", or ask for {able[0]} or more" if able else ""
    return SettingsError(
        f"--group-by {name}: no group supports --target-flag-rate {requested:g}: {saw}. Nothing "
        f"was trained; name a coarser group, bring more events{way_out}"
    )
