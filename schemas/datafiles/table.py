"""A table of events, and which columns of a data file make it. No files here: `schemas.datafiles`.

The rules, the same for every kind of file:

- a column is a feature unless it is named as label, id, time or dropped;
- a feature is a number that fits a 32-bit float; an empty cell, a null or NaN is missing;
- one that is named as a category is a text or an integer, and missing only where it is empty: NA
  may be Namibia;
- other text, truth values and infinities are refused by name and place: nothing is guessed;
- a label says normal (0, false, normal) or anomalous (1, true, anomaly, anomalous).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isnan

import numpy as np
import numpy.typing as npt

from schemas.calibration import Floats
from schemas.contract import Feature
from schemas.datafiles.groups import GroupColumn, RowGroups
from schemas.errors import DataError, did_you_mean
from schemas.event import EventLayout, InvalidEvent, Path, timestamp_ms

Bools = npt.NDArray[np.bool_]

# Up to here float32 holds every integer.
FLOAT32_EXACT_MAX = 2**24

_LABELS = {
    **dict.fromkeys(("0", "0.0", "false", "normal"), False),
    **dict.fromkeys(("1", "1.0", "true", "anomaly", "anomalous"), True),
}


@dataclass(frozen=True)
class FileOptions:
    """Which part of a data file serves as what.

    `array` is an NPZ file's features. `label_column`, `id_column` and `timestamp_column` name
    columns, arrays of an NPZ file, or (the label only) a dotted path in a JSON event, whose id
    and time stand where `layout` says. Without `label_column`, an NPZ file's array `y` labels.
    With `label_optional`, a file without the label column is one without labels, and no mistake.
    `category_columns` names the features that are categories, where no contract says it; `group`
    a group that is none of the features.
    """

    array: str = "X"
    label_column: str | None = None
    label_optional: bool = False
    id_column: str | None = None
    timestamp_column: str | None = None
    drop_columns: tuple[str, ...] = ()
    category_columns: tuple[str, ...] = ()
    group: GroupColumn | None = None
    layout: EventLayout = field(default_factory=EventLayout)

    @property
    def group_name(self) -> str | None:
        return None if self.group is None else self.group.name


@dataclass(frozen=True)
class Table:
    """Events as columns: `features` is float32 [n, d], NaN where missing.

    `paths` are the features' places in an event's JSON, below the layout's features. `categories`
    holds, for each feature that is a category, its texts in the order of their codes: all that the
    file holds, until `categories.recoded`. `collapsed` names the features whose integers float32
    cannot tell apart. `ignored` names what stands among a JSON event's features and is never a
    number.
    """

    names: tuple[str, ...]
    paths: tuple[Path, ...]
    features: Floats
    labels: Bools | None = None
    event_ids: list[str] | None = None
    timestamps_ms: list[int] | None = None
    collapsed: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    groups: RowGroups | None = None

    def __len__(self) -> int:
        return len(self.features)

    def as_written(self) -> Iterator[list[float | str]]:
        """Yield each event's features as its file has them: categories as texts."""
        texts = [(self.names.index(name), texts) for name, texts in self.categories.items()]
        for row in self.features.tolist():
            for place, of in texts:
                if not isnan(row[place]):
                    row[place] = of[int(row[place])]
            yield row


def settled(options: FileOptions, header: Sequence[str]) -> FileOptions:
    """Return the options for a file of these columns: an optional label that is absent is none."""
    if options.label_optional and options.label_column not in header:
        return replace(options, label_column=None)
    return options


def feature_columns(
    where: str, header: Sequence[str], options: FileOptions, wanted: Sequence[Feature] | None
) -> list[str]:
    """Return the columns that are features: the wanted ones in their order, or all that are left.

    Raises:
        DataError: a name occurs twice, or one that was asked for does not occur.
    """
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(f"{where} has several columns named {twice[0]!r}; wanted each name once")
    roles = (options.label_column, options.id_column, options.timestamp_column, options.group_name)
    for name in (*roles, *options.drop_columns, *options.category_columns):
        if name is not None:
            require_column(where, name, header)
    if wanted is not None:
        for feature in wanted:
            require_column(where, feature.name, header)
        return [feature.name for feature in wanted]
    for name in {*roles, *options.drop_columns} & {*options.category_columns}:
        raise DataError(
            f"{where}: the column {name!r} is named as a category and as something else; a "
            "category is a feature. Name it once"
        )
    left = [name for name in header if name not in {*roles, *options.drop_columns}]
    if not left:
        raise DataError(f"{where} has no column left to be a feature; wanted at least one")
    if "" in left:
        raise DataError(
            f"{where} has a column without a name, such as an index that was saved along; wanted "
            "a name for each feature. Leave it out with --drop-column ''"
        )
    return left


def require_column(where: str, name: str, known: Iterable[str]) -> None:
    """Raise DataError, with the nearest name that there is, unless `name` is known."""
    known = list(known)
    if name not in known:
        raise DataError(f"{where} has no column {name!r}{did_you_mean(name, known)}{_list(known)}")


def as_labels(
    where: str, column: str, values: Iterable[object], place: Callable[[int], str]
) -> Bools:
    """Return which events are anomalous.

    Raises:
        DataError: a value says neither normal nor anomalous.
    """
    labels = []
    for row, value in enumerate(values):
        label = _LABELS.get(str(value).strip().lower())
        if label is None:
            raise DataError(
                f"{where}, {place(row)}: the label {column!r} is {short(value)}; "
                "wanted 0, false or normal, or 1, true, anomaly or anomalous"
            )
        labels.append(label)
    return np.array(labels, np.bool_)


def as_timestamps(
    where: str, values: Iterable[object], options: FileOptions, place: Callable[[int], str]
) -> list[int]:
    """Return times as epoch milliseconds; numbers may be written as text, as CSV does.

    Raises:
        DataError: a time is missing, or not of the layout's kind.
    """
    kind = options.layout.timestamp_kind
    times = []
    for row, value in enumerate(values):
        try:
            number = float(value) if kind != "rfc3339" and isinstance(value, str) else value
            time = timestamp_ms(number, kind)
        except (InvalidEvent, ValueError):
            time = None
        if time is None:
            raise DataError(
                f"{where}, {place(row)}: the time {options.timestamp_column!r} is "
                f"{short(value)}; wanted epoch {kind} (--timestamp-kind: ms, s or rfc3339)"
            )
        times.append(time)
    return times


def _list(names: list[str]) -> str:
    shown = ", ".join(names[:8])
    return f". Its columns: {shown}" + (f" and {len(names) - 8:,} more" if len(names) > 8 else "")


def short(value: object) -> str:
    """Return a value as a message shows it."""
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
