"""Reads events from JSON, fast and exactly. Pure.

`schemas.event.parse_event` says what an event is. Reading it that way costs about 25 us an event
of 57 features, so three readers stand in a row, and each sees only what the one before it did
not take:

1. the scanner (`worker.scanner`), compiled from C where it could be: a whole batch at once, from
   bytes into the matrix, the plain shapes that nearly all events have. It reads numbers alone: a
   contract with categories begins with the second reader, at 2.5 times the cost an event;
2. a reader that msgspec compiles for the contract (`worker.typed_json`);
3. `parse_event`, whose word is final.

The rule that ties them: what a faster reader takes, `parse_event` takes too, with the same result
(`tests/worker/test_decode.py` and `test_scanner.py` search for a counter-example).

In the second reader, each decoded object dies before the next is made: 2.5 us against 4.4 us an
event when the objects of 4,096 events live at once.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

import numpy as np

from schemas.calibration import Floats
from schemas.contract import Contract
from schemas.event import InvalidEvent, parse_event
from schemas.groups import group_in
from worker.groups import group_path
from worker.scanner import Scanner, compile_scanner
from worker.turn import Batch, Records, Reject
from worker.typed_json import NOT_TAKEN, Number, compile_reader


class JsonReader:
    """Reads the JSON events of one contract; `scanner` is None where there is none."""

    def __init__(self, contract: Contract, scanner: Scanner | None) -> None:
        self._layout = contract.layout
        self._paths = contract.paths
        self._codes = contract.codes
        self._group = group_path(contract)
        self._width = len(contract.paths)
        self._scanner = scanner
        self._pack_into = struct.Struct(f"={self._width}f").pack_into
        self._read = compile_reader(contract.layout, contract.paths, contract.codes, self._group)

    @classmethod
    def of(cls, contract: Contract) -> JsonReader:
        """Return the fastest reader there is."""
        if any(codes is not None for codes in contract.codes):
            return cls(contract, None)
        return cls(contract, compile_scanner(contract.layout, contract.paths, group_path(contract)))

    @property
    def scans(self) -> bool:
        """Whether it has a scanner."""
        return self._scanner is not None

    def read(self, records: Records) -> Batch:
        """Sort records into events and rejects; none is without a place."""
        count = len(records)
        features = np.empty((count, self._width), np.float32)
        event_ids: list[str | None] = [None] * count
        timestamps: list[int | None] = [None] * count
        groups: list[str | None] | None = None if self._group is None else [None] * count
        rest: Sequence[int] = range(count)
        if self._scanner is not None:
            rest = self._scanner.scan(records.values, features, event_ids, timestamps, groups)
        rejects = self._read_each(rest, records.values, features, event_ids, timestamps, groups)
        return Batch.of(records, features, event_ids, timestamps, rejects, groups)

    def _read_each(
        self,
        rows: Sequence[int],
        values: Sequence[bytes | None],
        features: Floats,
        event_ids: list[str | None],
        timestamps: list[int | None],
        groups: list[str | None] | None,
    ) -> list[Reject]:
        """Read these rows into their places; return those that are no events."""
        rejects: list[Reject] = []
        read, pack_into, matrix = self._read, self._pack_into, features.data
        row_bytes = 4 * self._width
        for row in rows:
            value = values[row]
            try:
                event_ids[row], timestamps[row], numbers, group = read(value)
                try:
                    pack_into(matrix, row * row_bytes, *numbers)
                except struct.error:
                    pack_into(matrix, row * row_bytes, *_null_as_nan(numbers))
            except NOT_TAKEN:
                try:
                    event = parse_event(value, self._layout, self._paths, self._codes)
                except InvalidEvent as invalid:
                    rejects.append(Reject(row, invalid.reason, invalid.detail))
                    continue
                event_ids[row], timestamps[row] = event.event_id, event.timestamp_ms
                group = None if self._group is None else group_in(value, self._group)
                pack_into(matrix, row * row_bytes, *event.features)
            if groups is not None:
                groups[row] = group
        return rejects


def _null_as_nan(numbers: Sequence[Number]) -> list[float]:
    return [math.nan if number is None else number for number in numbers]
