"""One table of the events of one or several files, made a block of rows at a time.

Readers know a kind of file; here is what holds of all: equal features in every file, in whatever
order; labels in all or in none; numbers within a 32-bit float.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.calibration import Floats
from schemas.datafiles.groups import GroupColumn, GroupTexts
from schemas.datafiles.store import RowStore
from schemas.datafiles.table import (
    Bools,
    FileOptions,
    Table,
    as_labels,
    as_timestamps,
)
from schemas.datafiles.wide_integers import WideIntegers
from schemas.errors import DataError
from schemas.event import FLOAT32_LIMIT, Path

Place = Callable[[int], str]


@dataclass(frozen=True)
class Block:
    """Some events of a file: `features` [n, d], as wide as the file has them, NaN where missing.

    `place` names a row of the block for a message. What is None, the events do not have.
    """

    features: npt.NDArray[np.floating[Any]]
    place: Place
    labels: Bools | None = None
    event_ids: list[str] | None = None
    timestamps_ms: list[int] | None = None
    groups: Sequence[object] | None = None


class TableBuilder:
    """A table in the making. Without `keeps_ids`, ids and times are checked and let go."""

    def __init__(self, store: RowStore, *, keeps_ids: bool) -> None:
        self._store = store
        self._keeps_ids = keeps_ids
        self._first: str | None = None
        self._names: tuple[str, ...] = ()
        self._paths: tuple[Path, ...] = ()
        self._ignored: tuple[str, ...] = ()
        self._labels: list[Bools] = []
        self._ids: list[str] | None = []
        self._times: list[int] | None = []
        self._collapsed: dict[str, None] = {}
        self._groups = GroupTexts()
        self.categories: Mapping[str, Mapping[str, int]] = {}

    def begin(
        self,
        where: str,
        names: Sequence[str],
        categories: Mapping[str, Mapping[str, int]],
        paths: Sequence[Path] | None = None,
        ignored: tuple[str, ...] = (),
    ) -> None:
        """Begin a file of these features; `categories` are the texts of those that are some.

        Raises:
            DataError: an earlier file has others.
        """
        if self._first is None:
            self._first, self._names, self._ignored = where, tuple(names), ignored
            self._paths = tuple((name,) for name in names) if paths is None else tuple(paths)
        elif set(names) != set(self._names):
            odd = min(set(names) ^ set(self._names))
            raise DataError(
                f"{where} and {self._first} do not hold the same features: only one of them has "
                f"{odd!r}. Wanted equal columns; --drop-column leaves one out"
            )
        # The order of columns may differ from file to file.
        self._order = [names.index(name) for name in self._names]
        self._where, self._file_names = where, tuple(names)
        self._starts_at = self._store.count
        self._wide = WideIntegers(names)
        self._beyond, self._first_beyond = 0, ""
        self.categories = {name: categories[name] for name in self._names if name in categories}

    def add(self, block: Block, group: GroupColumn | None = None) -> None:
        """Take more events of the file; `group` is what their groups were read from.

        Raises:
            DataError: they have labels, and earlier ones none, or the other way round; or what
                should be a group is none.
            OutsideError: there is no room for them.
        """
        if self._store.count and (block.labels is None) != (not self._labels):
            raise DataError(
                f"only one of {self._where} and {self._first} has labels; wanted both or none"
            )
        self._count_beyond(block)
        if not self._beyond:
            self._wide.add(block.features)
        with np.errstate(over="ignore"):  # Counted, and refused in the end.
            rows = np.ascontiguousarray(block.features, np.float32)
        if self._order != [*range(len(self._order))]:
            rows = rows[:, self._order]
        self._store.append(rows)
        if block.labels is not None:
            self._labels.append(block.labels)
        if group is not None:
            self._groups.add(self._where, group, block.groups or (), block.place)
        self._ids = self._more(self._ids, block.event_ids)
        self._times = self._more(self._times, block.timestamps_ms)

    def end(self) -> None:
        """End the file.

        Raises:
            DataError: it holds no event, or numbers beyond a 32-bit float.
        """
        if self._store.count == self._starts_at:
            raise DataError(f"{self._where} holds no events; wanted at least one")
        if self._beyond:
            raise DataError(
                f"{self._where} holds {self._beyond:,} value(s) that are infinite or beyond a "
                f"32-bit float, the first in {self._first_beyond}. Wanted finite numbers; leave a "
                "missing value empty"
            )
        self._collapsed |= dict.fromkeys(self._wide.collapsed(self._column))

    def table(self) -> Table:
        """Return the table of all files."""
        return Table(
            names=self._names,
            paths=self._paths,
            features=self._store.rows(len(self._names)),
            labels=np.concatenate(self._labels) if self._labels else None,
            event_ids=self._ids,
            timestamps_ms=self._times,
            collapsed=tuple(self._collapsed),
            ignored=self._ignored,
            categories={name: tuple(texts) for name, texts in self.categories.items()},
            groups=self._groups.groups(),
        )

    def _column(self, place: int) -> Floats:
        """Return a column of the file, of which all rows are stored."""
        rows = self._store.rows(len(self._names))
        column: Floats = np.array(rows[self._starts_at :, self._order.index(place)])
        return column

    def _count_beyond(self, block: Block) -> None:
        features = block.features
        # Narrower floats than a double can be beyond the limit only as infinities.
        limit = FLOAT32_LIMIT if features.dtype.itemsize > 4 else np.inf
        beyond = np.abs(features) >= limit  # False for NaN, which means missing.
        if beyond.any():
            row, column = (int(axis[0]) for axis in np.nonzero(beyond))
            if not self._beyond:
                name = self._file_names[column]
                self._first_beyond = (
                    f"{block.place(row)}, column {name!r}: {features[row, column]:g}"
                )
            self._beyond += int(beyond.sum())

    def _more(self, seen: list[Any] | None, more: list[Any] | None) -> list[Any] | None:
        if seen is None or more is None or not self._keeps_ids:
            return None
        seen.extend(more)
        return seen


def block_of(
    where: str,
    features: npt.NDArray[np.floating[Any]],
    kept: Mapping[str, Sequence[object]],
    options: FileOptions,
    place: Place,
) -> Block:
    """Return a block of `features`; `kept` holds the columns of label, id, time and group.

    Raises:
        DataError: a value is not what its column should hold.
    """
    label, event_id, timestamp = options.label_column, options.id_column, options.timestamp_column
    return Block(
        features,
        place,
        labels=as_labels(where, label, kept[label], place) if label else None,
        event_ids=[str(value) for value in kept[event_id]] if event_id else None,
        timestamps_ms=as_timestamps(where, kept[timestamp], options, place) if timestamp else None,
        groups=kept[options.group.name] if options.group else None,
    )


def row_places(start: int) -> Place:
    """Return how a message names a row of a block that begins at row `start` (from 0)."""
    return lambda row: f"row {start + row + 1:,}"
