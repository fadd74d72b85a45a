"""The groups of a data file's events: a column that is no feature, or a place in a JSON event.

A cell is read as `schemas.groups` reads a record: a text or an integer; empty means none. Where a
model is made of them, everything else is refused by name and place; where a model is there
already, it names no group, as it would on a topic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from msgspec import UNSET, UnsetType

from schemas.category import CATEGORY_CHARS_MAX
from schemas.errors import DataError
from schemas.event import Path
from schemas.groups import GROUPS_MAX, GroupCodes, Groups, group_text

# Far more than can have a threshold of their own, and few enough to count: ids are refused early.
TEXTS_MAX = 100_000
NO_GROUP = -1


@dataclass(frozen=True)
class GroupColumn:
    """Where a file has its events' groups: a column, or `path` in a JSON event; `strict` as above.

    An empty `path` is the column's name, dotted.
    """

    name: str
    path: Path = ()
    strict: bool = True

    @classmethod
    def of(cls, groups: Groups | UnsetType) -> GroupColumn | None:
        """Return where a model's groups stand in a file; None: nowhere, or among the features."""
        if groups is UNSET or groups.source == "feature":
            return None
        return cls(groups.name, groups.path, strict=False)

    @property
    def place(self) -> Path:
        """Its place in a JSON event, from the top."""
        return self.path or tuple(self.name.split("."))


@dataclass(frozen=True)
class RowGroups:
    """The group of each of n rows: `codes` [n] are places in `texts`, `NO_GROUP` where none is."""

    codes: npt.NDArray[np.int32]
    texts: tuple[str, ...]

    def rows(self, picked: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> RowGroups:
        """Return the groups of these rows."""
        return RowGroups(self.codes[picked], self.texts)

    def recoded(self, known: Sequence[str]) -> GroupCodes:
        """Return each row's place in `known`, as many as there are where its group is not there."""
        places = {text: place for place, text in enumerate(known)}
        new = [*(places.get(text, len(known)) for text in self.texts), len(known)]
        return np.array(new, np.intp)[self.codes]

    def as_written(self) -> Iterator[str | None]:
        """Yield the text of each row's group; None where it names none."""
        texts = [*self.texts, None]
        yield from (texts[code] for code in self.codes.tolist())

    def counts(self) -> npt.NDArray[np.int64]:
        """Return how many rows each text has, and, last, how many rows name no group."""
        places = np.where(self.codes == NO_GROUP, len(self.texts), self.codes)
        return np.bincount(places, minlength=len(self.texts) + 1)


class GroupTexts:
    """The texts of a group column, coded as they come."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}
        self._parts: list[npt.NDArray[np.int32]] = []

    def add(
        self, where: str, column: GroupColumn, cells: Iterable[object], place: Callable[[int], str]
    ) -> None:
        """Take the cells of more rows; None and the empty text name no group.

        Raises:
            DataError: a cell is no group, or there are too many of them.
        """
        codes, seen = self._codes, []
        for row, cell in enumerate(cells):
            text = group_text(cell)
            if text is None and column.strict and cell not in (None, ""):
                raise DataError(
                    f"{where}, {place(row)}: the group {column.name!r} is {_short(cell)}; wanted a "
                    f"text of 1 to {CATEGORY_CHARS_MAX} characters or an integer, or nothing"
                )
            seen.append(NO_GROUP if text is None else codes.setdefault(text, len(codes)))
        if column.strict and len(codes) > TEXTS_MAX:
            raise DataError(
                f"{where}: the group {column.name!r} has more than {TEXTS_MAX:,} different texts; "
                f"at most {GROUPS_MAX:,} groups have a threshold of their own, and each needs many "
                "events. Name a coarser one with --group-by"
            )
        self._parts.append(np.array(seen, np.int32))

    def groups(self) -> RowGroups | None:
        """Return the groups of all rows; None if no cell was ever added."""
        return RowGroups(np.concatenate(self._parts), tuple(self._codes)) if self._parts else None


def _short(cell: object) -> str:
    text = repr(cell)
    return text if len(text) <= 40 else text[:37] + "..."
