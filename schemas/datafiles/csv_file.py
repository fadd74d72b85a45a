"""Events from CSV: one event a line, read number by number."""

from __future__ import annotations

import csv
import math
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path as FilePath
from typing import Protocol

import numpy as np

from schemas.contract import Feature
from schemas.datafiles.builder import Place, TableBuilder, block_of
from schemas.datafiles.categories import Texts, category_texts
from schemas.datafiles.cells import is_date, not_a_number
from schemas.datafiles.store import BLOCK_ROWS
from schemas.datafiles.table import FileOptions, feature_columns, settled
from schemas.errors import DataError

_UNUSED = "Nothing of the file was used"
_MISSING = frozenset({"", "na", "nan", "null"})


class _Rows(Protocol):
    """A csv.reader, whose type has no public name."""

    line_num: int

    def __iter__(self) -> Iterator[list[str]]: ...


def read_csv(
    path: FilePath, options: FileOptions, wanted: Sequence[Feature] | None, builder: TableBuilder
) -> None:
    """Read a CSV file: UTF-8, commas, a first line of names.

    Raises:
        DataError: it is no such file, or a cell does not fit its column.
    """
    rows: _Rows | None = None
    try:
        # utf-8-sig: spreadsheets put a byte order mark first, which is no part of a name.
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, strict=True)
            header = _csv_header(str(path), next(rows, []))
            options = settled(options, header)
            names = feature_columns(str(path), header, options, wanted)
            texts = category_texts(str(path), names, options, wanted, builder.categories)
            builder.begin(str(path), names, texts)
            _read_rows(str(path), rows, header, names, options, texts, builder)
    except UnicodeDecodeError:
        raise _undecodable(path) from None
    except csv.Error as error:
        line = 1 if rows is None else max(1, rows.line_num)
        raise DataError(
            f"{path}, line {line:,}: {error}; wanted CSV, its quotes around whole cells. {_UNUSED}"
        ) from None


def _undecodable(path: FilePath) -> DataError:
    """Return what to say of a file that is no UTF-8: of its first such byte, and of the line."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                return DataError(
                    f"{path}, line {number:,}: the byte 0x{line[error.start]:02x} is not UTF-8; "
                    f"wanted CSV in UTF-8. {_UNUSED}; save it as UTF-8"
                )
    return DataError(f"{path} is not UTF-8; wanted CSV in UTF-8. {_UNUSED}")


def _csv_header(where: str, header: list[str]) -> list[str]:
    if len(header) == 1 and any(mark in header[0] for mark in ";\t"):
        raise DataError(f"{where} separates its columns by tabs or semicolons; wanted commas")
    if header and all(_is_number(name) for name in header):
        raise DataError(f"{where} begins with a line of numbers; wanted the columns' names there")
    return header


def _read_rows(
    where: str,
    rows: _Rows,
    header: list[str],
    names: list[str],
    options: FileOptions,
    categories: dict[str, Texts],
    builder: TableBuilder,
) -> None:
    picks = [header.index(name) for name in names]
    coded = [(names.index(name), texts) for name, texts in categories.items()]
    roles = (options.label_column, options.id_column, options.timestamp_column, options.group_name)
    places = {name: header.index(name) for name in roles if name is not None}
    kept: dict[str, list[str]] = {name: [] for name in places}
    values, lines = array("d"), array("q")

    def hand_over() -> None:
        nonlocal values, lines, kept
        features = np.frombuffer(values, np.float64).reshape(len(lines), len(names))
        builder.add(block_of(where, features, kept, options, _line_places(lines)), options.group)
        values, lines, kept = array("d"), array("q"), {name: [] for name in places}

    for row in rows:
        if not row:
            continue
        if len(row) != len(header):
            raise DataError(
                f"{where}, line {rows.line_num}: {len(row):,} cells; wanted {len(header):,}, as "
                f"in the first line. {_UNUSED}; a comma within a cell takes quotes around the cell"
            )
        cells: list[str | float] = [row[pick] for pick in picks]
        for place, texts in coded:
            text = row[picks[place]]
            cells[place] = texts[text] if text else math.nan
        try:
            values.extend(map(float, cells))
        except ValueError:
            # The fast way gave up half-way: drop what it took, and read cell by cell.
            del values[len(lines) * len(picks) :]
            values.extend(
                _csv_number(where, rows.line_num, name, cell)
                for name, cell in zip(names, cells, strict=True)
            )
        for name, place in places.items():
            kept[name].append(row[place])
        lines.append(rows.line_num)
        if len(lines) == BLOCK_ROWS:
            hand_over()
    if lines:
        hand_over()


def _line_places(lines: Sequence[int]) -> Place:
    return lambda row: f"line {lines[row]}"


def _csv_number(where: str, line: int, column: str, cell: str | float) -> float:
    if isinstance(cell, str):
        if cell.strip().lower() in _MISSING:
            return math.nan
        if "\x00" in cell:
            raise DataError(
                f"{where}, line {line:,}, column {column!r}: a NUL byte, {cell[:40]!r}; wanted CSV "
                f"in UTF-8, which has none. {_UNUSED}; was it saved as UTF-16, or cut short?"
            )
        if not _is_number(cell):
            what = f"the text {cell[:40]!r}"
            raise not_a_number(where, f"line {line}", column, what, is_date=is_date(cell))
    return float(cell)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
