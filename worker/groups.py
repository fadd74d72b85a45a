"""Which group each event of a batch belongs to, as the code that its contract's calibrations know.

Pure. Whatever a record holds where its group belongs, it is judged: by the pooled calibration, if
it names no group that has its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import repeat
from typing import TypeVar

import msgspec
import numpy as np

from schemas.contract import Contract
from schemas.event import Path
from schemas.groups import GroupCodes, Groups
from worker.turn import Batch, Records

_Name = TypeVar("_Name", str, bytes)


def group_path(contract: Contract) -> Path | None:
    """Return where a JSON event has its group, from the top; None if it is not read from there."""
    groups = contract.groups
    return groups.path if groups is not msgspec.UNSET and groups.source == "event" else None


class GroupReader:
    """Tells the group of each event of one contract that has groups."""

    def __init__(self, contract: Contract, groups: Groups) -> None:
        assert contract.by_group is not None  # noqa: S101  # Made here, and not in the first turn.
        self._source = groups.source
        self._pooled = len(groups.texts)
        places = range(self._pooled)
        self._of_text: dict[str | None, int] = dict(zip(groups.texts, places, strict=True))
        self._of_key: dict[bytes | None, int] = {
            text.encode(): place for text, place in zip(groups.texts, places, strict=True)
        }
        if groups.source == "feature":
            self._column = contract.feature_names.index(groups.name)
            categories = contract.features[self._column].categories
            # By the category's code; the last is for an unseen one, and for none at all.
            of_code = [
                *(self._of_text.get(text, self._pooled) for text in categories),
                self._pooled,
            ]
            self._of_code = np.array(of_code, np.intp)

    @classmethod
    def of(cls, contract: Contract) -> GroupReader | None:
        """Return the reader of a contract, or None where it has no groups."""
        return None if contract.groups is msgspec.UNSET else cls(contract, contract.groups)

    def codes(self, records: Records, batch: Batch) -> GroupCodes:
        """Return the code of each event's group, [n]; `batch` was read from `records`."""
        if self._source == "feature":
            column = batch.features[:, self._column]
            unseen = np.float32(len(self._of_code) - 1)
            return self._of_code[np.where(np.isnan(column), unseen, column).astype(np.intp)]
        if self._source == "key":
            keys = records.keys
            if len(batch.rows) < len(keys):
                keys = [keys[row] for row in batch.rows]
            return self._looked_up(self._of_key, keys)
        return self._looked_up(self._of_text, batch.groups or ())

    def _looked_up(
        self, known: Mapping[_Name | None, int], names: Iterable[_Name | None]
    ) -> GroupCodes:
        # `get` is called from C: a loop that looks each up costs three times as much.
        return np.fromiter(map(known.get, names, repeat(self._pooled)), np.intp)
