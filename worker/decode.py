"""From records to a feature matrix, and rejects with their reasons. Pure.

An event is JSON (`worker.read_json`) or packed floats (`worker.read_packed`); each record's header
`content-type` says which, and where it says nothing, the setting does. Both may stand in one topic.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from schemas.contract import Contract
from schemas.dead_letter import Headers
from schemas.packed_event import CONTENT_TYPE_HEADER, PACKED
from worker.groups import group_path
from worker.read_json import JsonReader
from worker.read_packed import PackedReader
from worker.turn import Batch, Records, Reject

InputFormat = Literal["json", "packed"]


class Decoder:
    """Reads the records of one contract's events."""

    def __init__(self, contract: Contract) -> None:
        self._json = JsonReader.of(contract)
        self._packed = PackedReader(
            len(contract.features), contract.codes, grouped=group_path(contract) is not None
        )

    @property
    def scans(self) -> bool:
        """Whether JSON is read by the compiled scanner."""
        return self._json.scans

    def decode(self, records: Records, unmarked: InputFormat = "json") -> Batch:
        """Sort a turn's records into events and rejects; none is without a place.

        `unmarked` is the format of records without a header `content-type`.
        """
        packed = _packed_rows(records, unmarked)
        if not packed:
            return self._json.read(records)
        if len(packed) == len(records):
            return self._packed.read(records)
        marked = {*packed}
        json = [row for row in range(len(records)) if row not in marked]
        return _together(
            [
                (json, self._json.read(records.rows(json))),
                (packed, self._packed.read(records.rows(packed))),
            ]
        )


def _packed_rows(records: Records, unmarked: InputFormat) -> list[int]:
    if not any(records.headers):
        return [*range(len(records))] if unmarked == "packed" else []
    return [row for row, headers in enumerate(records.headers) if _is_packed(headers, unmarked)]


def _is_packed(headers: Headers | None, unmarked: InputFormat) -> bool:
    for name, value in headers or ():
        if name == CONTENT_TYPE_HEADER:
            return value == PACKED
    return unmarked == "packed"


def _together(parts: Sequence[tuple[Sequence[int], Batch]]) -> Batch:
    """Return one batch of several, each with the rows of the turn that it read."""
    rows = [places[row] for places, batch in parts for row in batch.rows]
    order = np.argsort(rows).tolist()
    event_ids = [event_id for _, batch in parts for event_id in batch.event_ids]
    times = [time for _, batch in parts for time in batch.timestamps_ms]
    groups = [group for _, batch in parts for group in batch.groups or ()]
    rejects = [
        Reject(places[reject.row], reject.reason, reject.detail)
        for places, batch in parts
        for reject in batch.rejects
    ]
    return Batch(
        np.concatenate([batch.features for _, batch in parts])[order],
        [rows[place] for place in order],
        [event_ids[place] for place in order],
        [times[place] for place in order],
        sorted(rejects, key=lambda reject: reject.row),
        [groups[place] for place in order] if groups else None,
    )
