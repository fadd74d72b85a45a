"""How a data file holds events: CSV, Parquet, NPZ and JSON lines, for both programs.

`read_table` reads one file, `read_tables` several as one. What a file says of its events is
decided in `table` and `builder`; their neighbours know only where each kind of file keeps it, and
`store` where the rows go: memory, or a scratch file for more rows than memory should hold. Every
way in which a file can be wrong is a `DataError` that names the file, the place, what stands there
and what was wanted.

CSV and Parquet are read some rows at a time; NPZ and JSON lines take memory for all of a file.

- CSV: UTF-8, commas, a first line of names.
- Parquet: needs pyarrow, which comes with the trainer.
- NPZ: an array of n events; further dimensions are flattened, and the features named f0, f1, ...
  unless an array `feature_names` names them. Never unpickled.
- JSON lines: one event a line, in the shape of `schemas.event` and the layout of the options.

Categories come as codes of the texts that the file holds; `recoded` gives them those of a model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path as FilePath

from schemas.contract import Feature
from schemas.datafiles.array_files import read_npz, read_parquet
from schemas.datafiles.builder import TableBuilder
from schemas.datafiles.categories import recoded
from schemas.datafiles.csv_file import read_csv
from schemas.datafiles.json_lines import read_json_lines
from schemas.datafiles.store import RowStore
from schemas.datafiles.table import FileOptions, Table
from schemas.errors import DataError

__all__ = ["FileOptions", "RowStore", "Table", "read_table", "read_tables", "recoded"]


def read_table(
    path: FilePath, options: FileOptions, wanted: Sequence[Feature] | None = None
) -> Table:
    """Read a data file into memory; with `wanted`, exactly these features in this order.

    Raises:
        DataError: the file cannot be used as it is.
    """
    return read_tables([path], options, wanted)


def read_tables(
    paths: Sequence[FilePath],
    options: FileOptions,
    wanted: Sequence[Feature] | None = None,
    store: RowStore | None = None,
) -> Table:
    """Read several files, whose features are the same, as one table.

    With a `store` the rows are where it puts them, and their ids and times are checked and not
    kept: each would be an object in memory.

    Raises:
        DataError: a file cannot be used, or the files' features differ.
        OutsideError: there is no room for the rows.
    """
    builder = TableBuilder(store or RowStore(math.inf), keeps_ids=store is None)
    for path in paths:
        read = _READERS.get(path.suffix.lower())
        if read is None:
            raise DataError(
                f"{path} is of no kind that is read here; wanted a name that ends in "
                f"{', '.join(_READERS)}"
            )
        try:
            if path.stat().st_size == 0:
                raise DataError(f"{path} is empty; wanted events")
            read(path, options, wanted, builder)
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
        builder.end()
    return builder.table()


_Reader = Callable[[FilePath, FileOptions, Sequence[Feature] | None, TableBuilder], None]
_READERS: dict[str, _Reader] = {
    ".csv": read_csv,
    ".parquet": read_parquet,
    ".npz": read_npz,
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
}
