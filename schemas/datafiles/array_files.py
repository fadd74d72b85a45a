"""Events from files of whole columns or arrays: Parquet and NPZ."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import structs
from numpy.lib.npyio import NpzFile

from schemas.contract import Feature
from schemas.datafiles.builder import Block, TableBuilder, block_of, row_places
from schemas.datafiles.categories import Texts, category_texts, refuse_categories
from schemas.datafiles.cells import not_a_number
from schemas.datafiles.store import BLOCK_ROWS
from schemas.datafiles.table import FileOptions, feature_columns, settled
from schemas.errors import DataError

# Columns become rows in the processor's cache: 8,192 rows of 57 numbers are 1.8 MiB.
_PARQUET_ROWS = 8192
_PARQUET_BUFFER = 2**18  # Bytes, for each column.
_NPZ_LABELS = "y"
_NPZ_NAMES = "feature_names"


def read_parquet(
    path: FilePath, options: FileOptions, wanted: Sequence[Feature] | None, builder: TableBuilder
) -> None:
    """Read a Parquet file, some rows at a time; needs pyarrow, which comes with the trainer.

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
        # Not buffered ahead, or the whole file is: of each column a little is in memory.
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=_PARQUET_BUFFER) as held:
            header = held.schema_arrow.names
            options = settled(options, header)
            names = feature_columns(where, header, options, wanted)
            texts = category_texts(where, names, options, wanted, builder.categories)
            builder.begin(where, names, texts)
            roles = (options.label_column, options.id_column, options.timestamp_column)
            read = {*names, *roles, options.group_name} - {None}  # The rest may be long texts.
            start = 0
            for rows in held.iter_batches(_PARQUET_ROWS, columns=[*read]):
                builder.add(
                    _parquet_block(where, rows, names, texts, options, start), options.group
                )
                start += len(rows)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is no Parquet file: {str(error).splitlines()[0]}") from None


def _parquet_block(
    where: str,
    rows: Any,  # noqa: ANN401  # A pyarrow.RecordBatch, which has no types of its own.
    names: Sequence[str],
    texts: Mapping[str, Texts],
    options: FileOptions,
    start: int,
) -> Block:
    import pyarrow as pa

    held = [rows.column(name) for name in names]
    narrow = not texts and all(column.type in (pa.float16(), pa.float32()) for column in held)
    features = np.empty((len(rows), len(names)), np.float32 if narrow else np.float64)
    place = row_places(start)
    for at, (name, column) in enumerate(zip(names, held, strict=True)):
        features[:, at] = (
            _parquet_codes(where, name, column, texts[name])
            if name in texts
            else _parquet_numbers(where, name, column)
        )
    roles = (options.label_column, options.id_column, options.group_name)
    kept = {name: rows.column(name).to_pylist() for name in roles if name is not None}
    when = options.timestamp_column
    if when is not None:
        times = rows.column(when)
        if pa.types.is_timestamp(times.type):
            # The type says the unit; one without a time zone is taken as UTC, as pandas writes it.
            times = times.cast(pa.timestamp("ms", times.type.tz), safe=False).cast(pa.int64())
            layout = structs.replace(options.layout, timestamp_kind="ms")
            options = replace(options, layout=layout)
        kept[when] = times.to_pylist()
    return block_of(where, features, kept, options, place)


def _parquet_numbers(
    where: str,
    name: str,
    column: Any,  # noqa: ANN401  # A pyarrow.Array.
) -> npt.NDArray[np.floating[Any]]:
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
    if not pa.types.is_float32(kind):
        column = column.cast(pa.float64(), safe=False)
    numbers: npt.NDArray[np.floating[Any]] = column.to_numpy(zero_copy_only=False)
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
    encoded = column.cast(pa.large_string()).dictionary_encode()
    codes = [texts[text] if text else np.nan for text in encoded.dictionary.to_pylist()]
    # The last one is what a null's index, -1, picks.
    places = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    coded: npt.NDArray[np.float64] = np.array([*codes, np.nan])[places]
    return coded


def read_npz(
    path: FilePath, options: FileOptions, wanted: Sequence[Feature] | None, builder: TableBuilder
) -> None:
    """Read an NPZ file's array of n events; further dimensions are flattened.

    numpy unpacks the array whole, so that it takes its size in memory, whatever the builder does.

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
            "arrays of objects, which rows of several lengths make, are not unpickled: fill "
            "shorter rows up with NaN"
        ) from None
    names, features = _npz_features(where, arrays, options, wanted)
    plain = replace(options, label_column=None, id_column=None, timestamp_column=None, group=None)
    picked = feature_columns(where, names, plain, wanted)
    places = [names.index(name) for name in picked]
    label = options.label_column or (_NPZ_LABELS if _NPZ_LABELS in arrays else None)
    options = replace(options, label_column=label)
    kept = _npz_kept(where, arrays, options, len(features))
    builder.begin(where, picked, {})
    for start in range(0, len(features), BLOCK_ROWS):
        some = features[start : start + BLOCK_ROWS, places]
        numbers = some if some.dtype.kind == "f" else some.astype(np.float64)
        beside = {
            name: values[start : start + BLOCK_ROWS].tolist() for name, values in kept.items()
        }
        builder.add(block_of(where, numbers, beside, options, row_places(start)), options.group)


def _npz_features(
    where: str,
    arrays: Mapping[str, npt.NDArray[Any]],
    options: FileOptions,
    wanted: Sequence[Feature] | None,
) -> tuple[list[str], npt.NDArray[Any]]:
    """Return the features' names, those of the wanted where the file has none, and rows [n, d]."""
    features = arrays[options.array]
    if features.dtype.kind not in "iuf" or features.ndim == 0:
        raise DataError(
            f"{where}: the array {options.array!r} is {features.dtype} with {features.ndim} "
            "dimension(s); wanted numbers, one event a row"
        )
    features = features.reshape(len(features), -1) if features.size else features.reshape(0, 1)
    names = [str(name) for name in arrays.get(_NPZ_NAMES, _numbered(features.shape[1]))]
    if len(names) != features.shape[1]:
        raise DataError(
            f"{where}: {len(names):,} names in {_NPZ_NAMES!r} for {features.shape[1]:,} features"
        )
    if wanted is not None and _NPZ_NAMES not in arrays:
        if len(wanted) != features.shape[1]:
            raise DataError(
                f"{where}: an event has {features.shape[1]:,} numbers; the model wants "
                f"{len(wanted):,} features"
            )
        names = [feature.name for feature in wanted]
    return names, features


def _npz_kept(
    where: str, arrays: Mapping[str, npt.NDArray[Any]], options: FileOptions, events: int
) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of label, id, time and group, each of one value an event."""
    label, group = options.label_column, options.group_name
    roles = (label, options.id_column, options.timestamp_column, group)
    kept = {name: arrays[name] for name in roles if name is not None}
    for name, values in kept.items():
        if len(values) != events:
            raise DataError(f"{where}: {len(values):,} values in {name!r} for {events:,} events")
    return kept


def _npz_arrays(where: str, held: NpzFile, options: FileOptions) -> dict[str, npt.NDArray[Any]]:
    asked = (
        *(options.array, options.label_column, options.id_column, options.timestamp_column),
        options.group_name,
    )
    for name in asked:
        if name is not None and name not in held.files:
            raise DataError(
                f"{where} has no array {name!r}; it holds {', '.join(held.files) or 'nothing'}. "
                "Name the events' array with --array"
            )
    return {name: held[name] for name in held.files if name in {*asked, _NPZ_LABELS, _NPZ_NAMES}}


def _numbered(width: int) -> list[str]:
    return [f"f{place}" for place in range(width)]
