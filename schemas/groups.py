"""Calibration by group: an event is judged by calibration events of its own group alone.

Mondrian conformal prediction (Vovk, Lindsay, Nouretdinov, Gammerman: Mondrian confidence machine,
technical report, Royal Holloway, University of London, 2003; Vovk, Gammerman, Shafer: Algorithmic
Learning in a Random World, 2005, section 4.5). The p-value and the threshold are those of
`schemas.calibration`, of one group's scores: among fresh normal events of each group by itself,
the target flag rate then holds.

A group is a text, or an integer, which counts as its decimal text; nothing is trimmed or folded.
Where an event holds none, an empty one, one longer than `CATEGORY_CHARS_MAX` or another thing, and
where its group has no calibration of its own, the pooled one judges it: the contract's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from schemas.calibration import Calibration, Floats
from schemas.category import CATEGORY_CHARS_MAX
from schemas.event import InvalidEvent, Path, load_object

# The place of each event's group among the contract's, or their number where the pooled one judges.
GroupCodes = npt.NDArray[np.intp]
# `feature`: a category among the features. `event`: a place of its own in the event's JSON.
# `key`: the record's key.
GroupSource = Literal["feature", "event", "key"]
# A tenant, a site, a country, a type of device; beyond it a group is an id, whose events are few.
GROUPS_MAX = 1024


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """One group: its text, its calibration, and the threshold at the contract's flag rate."""

    text: str
    threshold: float
    calibration: Calibration

    def complaints(self, rate: float) -> Iterator[str]:
        """Yield what contradicts itself, or the contract's flag rate."""
        yield from self.calibration.complaints()
        if self.calibration.tail is not msgspec.UNSET:
            yield "there is a tail, which only the calibration of all events may have"
        yield from self.calibration.threshold_complaints(rate, self.threshold)


class Groups(msgspec.Struct, frozen=True, kw_only=True):
    """The groups that are judged by themselves, and where an event says which is its own.

    `name` is the feature of a `feature`, else what a data file calls the group. `path` is the
    place of an `event`, from the top of its JSON; a packed event has it in a header. `pooled` says
    whose events the contract's own calibration is of: those of all other groups, for which the
    flag rate then holds together; or, where these were too few, of all groups: no more than a
    stand-in.
    """

    name: str
    source: GroupSource
    path: Path = ()
    pooled: Literal["others", "all"]
    members: tuple[Group, ...]

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(member.text for member in self.members)

    @property
    def place(self) -> tuple[GroupSource, str | Path]:
        """Where a record says its group; two models that differ in it read different things."""
        return self.source, self.name if self.source == "feature" else self.path

    def complaints(
        self, rate: float, categories: Mapping[str, Sequence[str]], others: Collection[Path]
    ) -> Iterator[str]:
        """Yield what contradicts itself, or the rest of the contract.

        `categories` are the texts of its features that are categories; `others` are the places of
        an event's other parts.
        """
        count = len(self.members)
        if not 1 <= count <= GROUPS_MAX:
            yield f"it has {count:,} groups; wanted 1 to {GROUPS_MAX:,}"
        if len(set(self.texts)) < count or None in map(group_text, self.texts):
            yield f"a group is empty, longer than {CATEGORY_CHARS_MAX} characters or occurs twice"
        if not self.name or not all(self.path) or bool(self.path) != (self.source == "event"):
            yield f"its groups have no name, or {self.path} as their place in a {self.source}"
        if self.source == "feature" and not {*self.texts} <= {*categories.get(self.name, ())}:
            yield f"{self.name!r} is no category that knows all of its groups"
        if self.source == "event" and self.path in others:
            yield f"its groups stand at {'.'.join(self.path)}, where something else does"
        for member in self.members:
            for complaint in member.complaints(rate):
                yield f"of the group {member.text!r}, {complaint}"


class GroupCalibrations:
    """All calibrations of a contract in one table: a batch is judged at once, whatever its groups.

    The steps of all groups (`Calibration.steps`) stand one after another, as integers that sort by
    group first and then as their scores do, so that one binary search finds the step of an event
    within its own group. It takes 16 bytes for every stored score.
    """

    def __init__(self, members: Sequence[Group], pooled: Calibration, threshold: float) -> None:
        calibrations = [*(member.calibration for member in members), pooled]
        steps = [calibration.steps for calibration in calibrations]
        lengths = [len(values) for values, _ in steps]
        owners = np.repeat(np.arange(len(steps)), lengths)
        self._steps = _by_group(np.concatenate([values for values, _ in steps]), owners)
        self._p_values = np.concatenate([p_values for _, p_values in steps])
        self._thresholds = np.array(
            [*(member.threshold for member in members), threshold], np.float32
        )

    def p_values(self, scores: Floats, codes: GroupCodes) -> npt.NDArray[np.float64]:
        """Return the p-value of each of n scores within its group; one of a NaN means nothing."""
        below = np.searchsorted(self._steps, _by_group(scores, codes), side="left")
        # Each group has one p-value more than it has steps: that of scores beyond the last.
        p_values: npt.NDArray[np.float64] = self._p_values[below + codes]
        return p_values

    def thresholds(self, codes: GroupCodes) -> Floats:
        """Return the threshold of each of n events."""
        thresholds: Floats = self._thresholds[codes]
        return thresholds


def group_text(value: object) -> str | None:
    """Return the group that a JSON value or a cell names; None if it names none."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    text = str(value)
    if not 0 < len(text) <= CATEGORY_CHARS_MAX:
        return None
    return text if _is_unicode(text) else None


def group_in(value: bytes | None, path: Path) -> str | None:
    """Return the group that a JSON event names at `path`; None if it names none."""
    try:
        held: Any = load_object(value)
    except InvalidEvent:
        return None
    for key in path:
        if not isinstance(held, dict):
            return None
        held = held.get(key)
    return group_text(held)


def group_bytes(raw: bytes | None) -> str | None:
    """Return the group that a record's key or header names; None if it names none."""
    try:
        return group_text(raw.decode()) if raw else None
    except UnicodeDecodeError:
        return None


def _by_group(scores: Floats, codes: GroupCodes) -> npt.NDArray[np.uint64]:
    """Return integers that sort by group, and within a group as the scores do."""
    bits = (scores + np.float32(0)).view(np.uint32)  # -0 becomes 0: they are equal.
    # Of IEEE 754 numbers the bits sort as they do, those of negative ones the other way round.
    sign = np.uint32(1 << 31)
    ordered = np.where(bits & sign, ~bits, bits | sign)
    return (codes.astype(np.uint64) << np.uint64(32)) | ordered


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # Half of a surrogate pair, which JSON can escape.
        return False
    return True
