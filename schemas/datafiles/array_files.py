"""Events from files of whole columns or arrays: Parquet and NPZ."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import structs
from numpy.lib.npyio import NpzFile

from schemas.contract import Feature
from schemas.datafiles.categories import Texts, category_texts, refuse_categories
from schemas.datafiles.cells import not_a_number
from schemas.datafiles.table import (
    FileOptions,
    Table,
    feature_columns,
    make_table,
    row_place,
    settled,
)
from schemas.errors import DataError

_NPZ_LABELS = "y"
_NPZ_NAMES = "feature_names"


def read_parquet(path: FilePath, options: FileOptions, wanted: Sequence[Feature] | None) -> Table:
    """Read a Parquet file; needs pyarrow, which comes with the trainer.

    Raises:
        DataError: it is no such file, or a column does not hold what it should.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise DataError(
            f"{path} is a Parquet file, and pyarrow, which reads those, is not installed; "
            "install odradek[trainer], or hand over CSV, NPZ or JSON lines"
        ) from None
    where = str(path)
    try:
        # The bytes, not the path: a column of that name would be filled in from the folder's.
        held = pq.ParquetFile(path).read()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is no Parquet file: {str(error).splitlines()[0]}") from None
    options = settled(options, held.column_names)
    names = feature_columns(where, held.column_names, options, wanted)
    categories = category_texts(where, names, options, wanted)
    features = np.empty((held.num_rows, len(names)), np.float64)
    for place, name in enumerate(names):
        features[:, place] = (
            _parquet_codes(where, name, held.column(name), categories[name])
            if name in categories
            else _parquet_numbers(where, name, held.column(name))
        )
    roles = (options.label_column, options.id_column)
    kept = {name: held.column(name).to_pylist() for name in roles if name is not None}
    when = options.timestamp_column
    if when is not None:
        times = held.column(when)
        if pa.types.is_timestamp(times.type):
            # The type says the unit; one without a time zone is taken as UTC, as pandas writes it.
            times = times.cast(pa.timestamp("ms", times.type.tz), safe=False).cast(pa.int64())
            layout = structs.replace(options.layout, timestamp_kind="ms")
            options = replace(options, layout=layout)
        kept[when] = times.to_pylist()
    return make_table(where, names, features, kept, options, row_place, categories)


def _parquet_numbers(
    where: str,
    name: str,
    column: Any,  # noqa: ANN401  # A pyarrow.ChunkedArray, which has no types of its own.
) -> npt.NDArray[np.float64]:
    import pyarrow as pa

    kind = column.type
    if not (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_null(kind)
    ):
        dated = pa.types.is_temporal(kind)
        raise not_a_number(where, "row 1", name, f"its type is {kind}", is_date=dated)
    numbers: npt.NDArray[np.float64] = column.cast(pa.float64(), safe=False).to_numpy()
    return numbers


def _parquet_codes(
    where: str,
    name: str,
    column: Any,  # noqa: ANN401
    texts: Texts,
) -> npt.NDArray[np.float64]:
    import pyarrow as pa

    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    texts_of = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    if not (
        any(is_text(kind) for is_text in texts_of)
        or pa.types.is_integer(kind)
        or pa.types.is_null(kind)
    ):
        raise DataError(
            f"{where}, column {name!r}: its type is {kind}; a category is text or integers. Write "
            "it as one of those"
        )
    parts = [np.empty(0)]
    for chunk in column.cast(pa.large_string()).chunks:
        encoded = chunk.dictionary_encode()
        codes = [texts[text] if text else np.nan for text in encoded.dictionary.to_pylist()]
        # The last one is what a null's index, -1, picks.
        places = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        parts.append(np.array([*codes, np.nan])[places])
    return np.concatenate(parts)


def read_npz(path: FilePath, options: FileOptions, wanted: Sequence[Feature] | None) -> Table:
    """Read an NPZ file's array of n events; further dimensions are flattened.

    Raises:
        DataError: it is no such file, or an array does not hold what it should.
    """
    where = str(path)
    refuse_categories(where, options, wanted)
    try:
        # Opened here: numpy leaves a file open that turns out not to be one of its own.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as held:
            options = settled(options, held.files)
            arrays = _npz_arrays(where, held, options)
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, TypeError) as error:
        # TypeError: a plain .npy array under this name has no members.
        raise DataError(
            f"{path} is no NPZ file of plain arrays: {error}. Wanted what numpy.savez writes; "
            "arrays of objects are not unpickled"
        ) from None
    features = arrays[options.array]
    if features.dtype.kind not in "iuf" or features.ndim == 0:
        raise DataError(
            f"{path}: the array {options.array!r} is {features.dtype} with {features.ndim} "
            "dimension(s); wanted numbers, one event a row"
        )
    features = features.reshape(len(features), -1) if features.size else features.reshape(0, 1)
    names = [str(name) for name in arrays.get(_NPZ_NAMES, _numbered(features.shape[1]))]
    if len(names) != features.shape[1]:
        raise DataError(
            f"{path}: {len(names):,} names in {_NPZ_NAMES!r} for {features.shape[1]:,} features"
        )
    if wanted is not None and _NPZ_NAMES not in arrays:
        if len(wanted) != features.shape[1]:
            raise DataError(
                f"{path}: an event has {features.shape[1]:,} numbers; the model wants "
                f"{len(wanted):,} features"
            )
        names = [feature.name for feature in wanted]
    plain = replace(options, label_column=None, id_column=None, timestamp_column=None)
    picked = feature_columns(where, names, plain, wanted)
    features = features[:, [names.index(name) for name in picked]]
    if features.dtype.kind != "f":
        features = features.astype(np.float64)
    label = options.label_column or (_NPZ_LABELS if _NPZ_LABELS in arrays else None)
    roles = (label, options.id_column, options.timestamp_column)
    kept = {name: arrays[name].tolist() for name in roles if name is not None}
    return make_table(
        where, picked, features, kept, replace(options, label_column=label), row_place, {}
    )


def _npz_arrays(where: str, held: NpzFile, options: FileOptions) -> dict[str, npt.NDArray[Any]]:
    asked = (options.array, options.label_column, options.id_column, options.timestamp_column)
    for name in asked:
        if name is not None and name not in held.files:
            raise DataError(
                f"{where} has no array {name!r}; it holds {', '.join(held.files) or 'nothing'}. "
                "Name the events' array with --array"
            )
    return {name: held[name] for name in held.files if name in {*asked, _NPZ_LABELS, _NPZ_NAMES}}


def _numbered(width: int) -> list[str]:
    return [f"f{place}" for place in range(width)]
