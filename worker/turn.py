"""The nouns of a turn: what passes between reading, decoding, scoring and writing.

Records travel as columns of equal length, not as an object each: at 100,000 events a second,
building the objects would cost more than the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt

from schemas.calibration import Floats
from schemas.dead_letter import Headers, Reason


@dataclass(frozen=True, slots=True)
class Records:
    """Records of one topic, as columns in the order in which they were read."""

    topic: str
    partitions: list[int]
    offsets: list[int]
    timestamps_ms: list[int]
    keys: list[bytes | None]
    values: list[bytes | None]
    headers: list[Headers | None]

    def __len__(self) -> int:
        return len(self.values)

    def place_of(self, row: int) -> str:
        """Return the id of an event that has none of its own."""
        return f"{self.topic}-{self.partitions[row]}-{self.offsets[row]}"

    def rows(self, rows: list[int]) -> Records:
        """Return the records at these places."""
        return Records(
            self.topic,
            [self.partitions[row] for row in rows],
            [self.offsets[row] for row in rows],
            [self.timestamps_ms[row] for row in rows],
            [self.keys[row] for row in rows],
            [self.values[row] for row in rows],
            [self.headers[row] for row in rows],
        )


class Released(StrEnum):
    """Why a turn's batch was let go of as it was. Closed: the metric's label is this."""

    FULL = "full"  # It had as many records as a turn may have.
    WAITED = "waited"  # It had waited for as long as its first record may.
    DRAINED = "drained"  # Nothing more was there to be read.


class TurnLimits(NamedTuple):
    """How many records a turn has at most, and how long its first one waits for others."""

    records: int
    wait_s: float = 0.0

    def released(self, records: int, *, waited: bool) -> Released:
        """Return why a batch of so many records was let go of."""
        if records >= self.records:
            return Released.FULL
        return Released.WAITED if waited else Released.DRAINED


@dataclass(frozen=True, slots=True)
class Turn:
    """One batch, and where its partitions stand once it is done.

    `offsets` holds, per partition, the offset after the last record read; fixed when the turn is
    read, because the consumer's own position moves on with the next read. `assignments` holds
    our number of each partition's assignment at that time: a turn may only commit for a
    partition that still has that number.
    """

    records: Records
    offsets: dict[int, int]
    assignments: dict[int, int]
    released: Released = Released.DRAINED

    def restricted_to(self, assignments: Mapping[int, int]) -> Turn:
        """Return what is left of the turn when only `assignments` are ours; itself, if all is."""
        stale = {p for p, number in self.assignments.items() if assignments.get(p) != number}
        if not stale:
            return self
        kept = [row for row, p in enumerate(self.records.partitions) if p not in stale]
        return Turn(
            self.records.rows(kept),
            {p: offset for p, offset in self.offsets.items() if p not in stale},
            {p: number for p, number in self.assignments.items() if p not in stale},
            self.released,
        )


@dataclass(frozen=True, slots=True)
class Reject:
    """A record that is no event, by its place in the turn."""

    row: int
    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Batch:
    """The events of a turn, and its rejects.

    `features` is float32 [n, d], NaN where missing; `rows[i]` is the place in the turn's records
    of the event in row i. A row is either here or among the rejects. `groups` are the texts of the
    events' groups, as they stand there; None where the contract's groups are not read from events.
    """

    features: Floats
    rows: list[int]
    event_ids: list[str]
    timestamps_ms: list[int]
    rejects: list[Reject]
    groups: list[str | None] | None = None

    @classmethod
    def of(
        cls,
        records: Records,
        features: Floats,
        event_ids: list[str | None],
        timestamps_ms: list[int | None],
        rejects: list[Reject],
        groups: list[str | None] | None = None,
    ) -> Batch:
        """Return the batch of columns that have a place for every record, rejects in order.

        Where an event has no id, its place in its topic stands in; where no time, its record's.
        """
        rows = [*range(len(records))]
        if rejects:
            bad = {reject.row for reject in rejects}
            rows = [row for row in rows if row not in bad]
            features = features[rows]
            event_ids = [event_ids[row] for row in rows]
            timestamps_ms = [timestamps_ms[row] for row in rows]
            groups = groups and [groups[row] for row in rows]
        if None in event_ids:
            event_ids = [
                records.place_of(row) if event_id is None else event_id
                for row, event_id in zip(rows, event_ids, strict=True)
            ]
        if None in timestamps_ms:
            timestamps_ms = [
                records.timestamps_ms[row] if time is None else time
                for row, time in zip(rows, timestamps_ms, strict=True)
            ]
        ids, times = cast("list[str]", event_ids), cast("list[int]", timestamps_ms)
        return cls(features, rows, ids, times, rejects, groups)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """Records to write to one topic, as columns. `headers` is empty when no record has any."""

    values: list[bytes | None] = field(default_factory=list)
    keys: list[bytes | None] = field(default_factory=list)
    headers: list[Headers] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True, slots=True)
class Sample:
    """Some of a turn's events, to be looked at for drift: see `worker.sample`.

    `features` is float32 [s, d]; `p_values` float64 [s], NaN where there is none;
    `record_times_ms` are the timestamps in Kafka of some of the turn's records; `model_digest` says
    whose features and p-values these are: a turn may be settled when its model is none any more.
    """

    features: Floats
    p_values: npt.NDArray[np.float64]
    record_times_ms: list[int]
    model_digest: str


@dataclass(frozen=True, slots=True)
class Tally:
    """What a turn's outputs come to, for the metrics: counted when they are acknowledged.

    `outcomes` counts records by verdict, dead letters beside them; `p_values` are those of the
    scored events; `timestamps_ms` the events' own times; `ungrouped` counts events that the pooled
    calibration judged for want of a group's own; `flagged_by` counts flagged events by the name of
    the feature with the largest part in their score.
    """

    outcomes: dict[str, int]
    reasons: dict[Reason, int]
    p_values: npt.NDArray[np.float64]
    timestamps_ms: list[int]
    ungrouped: int = 0
    flagged_by: Mapping[str, int] = field(default_factory=dict)
    sample: Sample | None = None


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a turn yields: scores and dead letters, together as many as its records."""

    scores: Outgoing
    dead_letters: Outgoing
    tally: Tally
