"""How a data file holds events: CSV, Parquet, NPZ and JSON lines, for both programs.

`read_table` reads one file, `read_tables` several as one. What a file says of its events is
decided in `table`; its neighbours know only where each kind of file keeps it. Every way in which a
file can be wrong is a `DataError` that names the file, the place, what stands there and what was
wanted.

- CSV: UTF-8, commas, a first line of names.
- Parquet: needs pyarrow, which comes with the trainer.
- NPZ: an array of n events; further dimensions are flattened, and the features named f0, f1, ...
  unless an array `feature_names` names them. Never unpickled.
- JSON lines: one event a line, in the shape of `schemas.event` and the layout of the options.

Categories come as codes of the texts that the file holds; `recoded` gives them those of a model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path as FilePath

import numpy as np

from schemas.contract import Feature
from schemas.datafiles.array_files import read_npz, read_parquet
from schemas.datafiles.categories import recoded
from schemas.datafiles.csv_file import read_csv
from schemas.datafiles.json_lines import read_json_lines
from schemas.datafiles.table import FileOptions, Table
from schemas.errors import DataError

__all__ = ["FileOptions", "Table", "read_table", "read_tables", "recoded"]


def read_table(
    path: FilePath, options: FileOptions, wanted: Sequence[Feature] | None = None
) -> Table:
    """Read a data file; with `wanted`, exactly these features in this order.

    Raises:
        DataError: the file cannot be used as it is.
    """
    read = _READERS.get(path.suffix.lower())
    if read is None:
        raise DataError(
            f"{path} is of no kind that is read here; wanted a name that ends in "
            f"{', '.join(_READERS)}"
        )
    try:
        if path.stat().st_size == 0:
            raise DataError(f"{path} is empty; wanted events")
        table = read(path, options, wanted)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    if not len(table):
        raise DataError(f"{path} holds no events; wanted at least one")
    return table


def read_tables(
    paths: Sequence[FilePath], options: FileOptions, wanted: Sequence[Feature] | None = None
) -> Table:
    """Read several files, whose features are the same, as one table.

    Raises:
        DataError: a file cannot be used, or the files' features differ.
    """
    tables = [read_table(path, options, wanted) for path in paths]
    first = tables[0]
    for path, table in zip(paths, tables, strict=True):
        if set(table.names) != set(first.names):
            odd = min(set(table.names) ^ set(first.names))
            raise DataError(
                f"{path} and {paths[0]} do not hold the same features: only one of them has "
                f"{odd!r}. Wanted equal columns; --drop-column leaves one out"
            )
        if (table.labels is None) != (first.labels is None):
            raise DataError(f"only one of {path} and {paths[0]} has labels; wanted both or none")
    return _joined(tables)


def _joined(tables: Sequence[Table]) -> Table:
    first = tables[0]
    if len(tables) == 1:
        return first
    lists = {
        name: [*dict.fromkeys(chain.from_iterable(table.categories[name] for table in tables))]
        for name in first.categories
    }
    tables = [recoded(table, lists) for table in tables]
    # The order of columns may differ from file to file.
    parts = [table.features[:, [table.names.index(n) for n in first.names]] for table in tables]
    labels = [table.labels for table in tables if table.labels is not None]
    ids = [table.event_ids for table in tables if table.event_ids is not None]
    times = [table.timestamps_ms for table in tables if table.timestamps_ms is not None]
    return replace(
        tables[0],
        features=np.concatenate(parts),
        collapsed=tuple(dict.fromkeys(name for table in tables for name in table.collapsed)),
        labels=np.concatenate(labels) if labels else None,
        event_ids=list(chain.from_iterable(ids)) if len(ids) == len(tables) else None,
        timestamps_ms=list(chain.from_iterable(times)) if len(times) == len(tables) else None,
    )


_READERS: dict[str, Callable[[FilePath, FileOptions, Sequence[Feature] | None], Table]] = {
    ".csv": read_csv,
    ".parquet": read_parquet,
    ".npz": read_npz,
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
}
