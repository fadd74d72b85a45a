"""Reads packed events: a whole batch by one copy, if all of its records are good. Pure.

`schemas.packed_event` says what a packed event is; a batch that is not wholly good is read by its
`parse_packed`, record by record. A property test holds both to the same answers.
"""

from __future__ import annotations

import numpy as np

from schemas.calibration import Floats
from schemas.category import FeatureCodes
from schemas.event import InvalidEvent
from schemas.packed_event import FEATURE_BYTES, packed_event_id, packed_group, parse_packed
from worker.turn import Batch, Records, Reject


class PackedReader:
    """Reads the packed events of a contract with so many features; `codes` as in `parse_packed`.

    `grouped`: their groups are wanted, too.
    """

    def __init__(self, features: int, codes: FeatureCodes = (), *, grouped: bool = False) -> None:
        self._width = features
        self._grouped = grouped
        self._codes = codes
        known = {place: len(of) for place, of in enumerate(codes) if of is not None}
        self._categories, self._unseen = [*known], np.array([*known.values()], np.float32)

    def read(self, records: Records) -> Batch:
        """Sort records into events and rejects; none is without a place."""
        times: list[int | None] = [None] * len(records)
        groups = [*map(packed_group, records.headers)] if self._grouped else None
        if (features := self._matrix(records)) is not None:
            try:
                event_ids = [*map(packed_event_id, records.keys, records.headers)]
                return Batch.of(records, features, event_ids, times, [], groups)
            except InvalidEvent:
                pass  # Which one, and why, is found below.
        return self._read_each(records, times, groups)

    def _matrix(self, records: Records) -> Floats | None:
        """Return the features [n, d], or None where a record has none."""
        wanted = FEATURE_BYTES * self._width
        values = [value for value in records.values if value is not None and len(value) == wanted]
        if len(values) < len(records):
            return None
        matrix = np.frombuffer(b"".join(values), "<f4").reshape(-1, self._width)
        if np.isinf(matrix).any() or (self._categories and not self._all_codes(matrix)):
            return None
        return matrix.astype(np.float32, copy=False)

    def _all_codes(self, matrix: Floats) -> bool:
        codes = matrix[:, self._categories]
        good = (codes == np.trunc(codes)) & (codes >= 0) & (codes <= self._unseen)
        return bool((good | np.isnan(codes)).all())

    def _read_each(
        self, records: Records, times: list[int | None], groups: list[str | None] | None
    ) -> Batch:
        features = np.full((len(records), self._width), np.nan, np.float32)
        event_ids: list[str | None] = [None] * len(records)
        rejects: list[Reject] = []
        columns = zip(records.values, records.keys, records.headers, strict=True)
        for row, (value, key, headers) in enumerate(columns):
            try:
                event = parse_packed(value, key, headers, self._width, self._codes)
            except InvalidEvent as invalid:
                rejects.append(Reject(row, invalid.reason, invalid.detail))
                continue
            event_ids[row] = event.event_id
            features[row] = event.features
        return Batch.of(records, features, event_ids, times, rejects, groups)
