"""Where to begin in a partition: the rules, without the asking. Pure.

A group that has committed goes on there, if that place still exists. Otherwise records have been
lost to retention, truncation or deletion: a gap, which is never skipped without a word.

Each commit carries a note: the id of the topic that it is about, since a topic that is made
again under its name may well have grown beyond the old offset; and the deliberate start that
it followed, so that `ODRADEK_FROM_TIME` is heeded once and not again at each restart.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

import msgspec

MARK_CHARS_MAX = 200


class Note(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a commit says beside its offset."""

    topic_id: str | None = None
    start: str | None = None

    def text(self) -> str:
        """Return the note as Kafka keeps it, in the commit's metadata."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def read(cls, text: str | None) -> Note:
        """Read a note back; whatever others have written there says nothing to us."""
        try:
            return msgspec.json.decode((text or "{}").rstrip("\0"), type=cls)
        except msgspec.DecodeError:
            return cls()


@dataclass(frozen=True)
class Place:
    """A place in a partition that a group has reached, by its last commit or its own reading."""

    offset: int
    note: Note


@dataclass(frozen=True)
class Range:
    """What a partition holds: offsets from `low` to before `high`; which topic it belongs to."""

    low: int
    high: int
    topic_id: str
    from_time: int | None = None  # The first offset at or after ODRADEK_FROM_TIME, if asked.


@dataclass(frozen=True)
class StartRules:
    """What the settings say. Times are epoch milliseconds."""

    new_group: Literal["earliest", "latest"] = "earliest"
    on_gap: Literal["stop", "jump"] = "stop"
    from_time_ms: int | None = None
    from_offsets: Mapping[int | None, int] = field(default_factory=dict)  # None: every partition.

    @property
    def mark(self) -> str | None:
        """Return what names the deliberate start, if there is one."""
        if self.from_time_ms is not None:
            return f"time {self.from_time_ms}"
        offsets = sorted(self.from_offsets.items(), key=lambda item: (item[0] or -1, item[1]))
        text = f"offsets {offsets}"
        if len(text) > MARK_CHARS_MAX:  # Kafka takes 4,096 bytes beside an offset.
            text = f"offsets {hashlib.sha256(text.encode()).hexdigest()}"
        return text if offsets else None


@dataclass(frozen=True)
class Start:
    """Where to begin, and why. `gap` says what is lost, and `lost_records` how many at least."""

    offset: int
    why: str
    gap: str | None = None
    lost_records: int = 0


class OutOfRange(Exception):
    """A deliberate start lies where the partition has nothing."""


def start_of(partition: int, place: Place | None, held: Range, rules: StartRules) -> Start:
    """Return where to begin in a partition.

    Raises:
        OutOfRange: ODRADEK_FROM_OFFSET is outside of what the partition holds.
    """
    if rules.mark is not None and (place is None or place.note.start != rules.mark):
        deliberate = _deliberate(partition, held, rules)
        if deliberate is not None:
            return deliberate
    if place is None:
        offset = held.high if rules.new_group == "latest" else held.low
        return Start(offset, f"no committed offset: starting at the {rules.new_group}")
    seen = place.offset
    where = f"the group had reached {seen}, and the partition holds {held.low} to {held.high}"
    if place.note.topic_id not in (None, held.topic_id):
        return Start(
            held.low,
            "the topic was made again",
            f"the topic was deleted and made again ({where} of another topic of this name)",
        )
    if seen < held.low:
        return Start(
            held.low, "retention", f"retention or a deletion was faster ({where})", held.low - seen
        )
    if seen > held.high:
        return Start(
            held.low,
            "truncated",
            f"the partition is shorter than it was: truncated, or the topic made again ({where})",
            seen - held.high,
        )
    return Start(seen, "committed")


def _deliberate(partition: int, held: Range, rules: StartRules) -> Start | None:
    if rules.from_time_ms is not None:
        offset = held.high if held.from_time is None else held.from_time
        return Start(offset, "ODRADEK_FROM_TIME")
    wanted = rules.from_offsets.get(partition, rules.from_offsets.get(None))
    if wanted is None:
        return None
    if not held.low <= wanted <= held.high:
        raise OutOfRange(
            f"ODRADEK_FROM_OFFSET wants offset {wanted} of partition {partition}, which holds "
            f"{held.low} to {held.high}"
        )
    return Start(wanted, "ODRADEK_FROM_OFFSET")


def epoch_ms(text: str) -> int:
    """Read a time as the settings give it.

    Raises:
        ValueError: it is none.
    """
    if text.isdecimal() and int(text) < 2**63:
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ValueError("wanted epoch milliseconds, or RFC 3339 such as 2026-01-31T06:00:00Z")
    return int(moment.timestamp() * 1000)


def offsets_of(text: str) -> dict[int | None, int]:
    """Read "17" as the offset of every partition, "0:17,2:40" as those of two.

    Raises:
        ValueError: it is neither.
    """
    parts = [re.fullmatch(r"(?:(\d+):)?(\d+)", part.strip()) for part in text.split(",")]
    found = [(part[1], int(part[2])) for part in parts if part]
    offsets = {None if p is None else int(p): offset for p, offset in found}
    if len(offsets) != len(parts) or (None in offsets and len(parts) > 1):
        raise ValueError("wanted one offset, or partition:offset pairs such as 0:17,2:40")
    return offsets
