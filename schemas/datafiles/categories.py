"""Categories in data files: each text becomes a code as it is read, and codes change their list.

Which columns are categories is said, by a contract or by `FileOptions.category_columns`, and never
guessed: a number that is misspelt once, a date and an id would all make a category of their column.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from schemas.category import CATEGORIES_MAX, CATEGORY_CHARS_MAX, Codes
from schemas.contract import Feature
from schemas.datafiles.table import FLOAT32_EXACT_MAX, FileOptions, Table, require_column, short
from schemas.errors import DataError

# Far more than a category may have, and few enough to hold: a column of ids is refused early.
TEXTS_MAX = 100_000


class Texts(dict[str, int]):
    """The code of each text of one column: `texts[text]` gives a new one the next code.

    Raises:
        DataError: the text is too long for a category, or is one too many.
    """

    def __init__(
        self, where: str, column: str, most: int, known: Mapping[str, int] | None = None
    ) -> None:
        super().__init__(known or {})
        self._where, self._column, self._most = where, column, most

    def __missing__(self, text: str) -> int:
        if len(text) > CATEGORY_CHARS_MAX:
            raise DataError(
                f"{self._where}, column {self._column!r}: the text {short(text)} has {len(text):,} "
                f"characters; a category has at most {CATEGORY_CHARS_MAX}. Leave free text out "
                f"with --drop-column {self._column}"
            )
        if len(self) == self._most:
            raise too_many(self._where, self._column, f"more than {self._most:,}")
        code = self[text] = len(self)
        return code


def too_many(where: str, column: str, how_many: str) -> DataError:
    """Return the error for a column that is no category, because it hardly repeats itself."""
    return DataError(
        f"{where}, column {column!r}: {how_many} different texts; a category has at most "
        f"{CATEGORIES_MAX:,}. If it says which event it is, it is no feature: name it with "
        f"--id-column {column}, or leave it out with --drop-column {column}; or write a coarser "
        "one, such as the first part of an address"
    )


def category_texts(
    where: str,
    names: Sequence[str],
    options: FileOptions,
    wanted: Sequence[Feature] | None,
    known: Mapping[str, Mapping[str, int]],
) -> dict[str, Texts]:
    """Return the features that are categories, with the texts `known` from earlier files.

    Raises:
        DataError: one that was asked for is not among the features `names`.
    """
    if wanted is not None:
        # Any number of texts may be unseen, as long as a float32 can tell their codes apart.
        most, categories = FLOAT32_EXACT_MAX, [f.name for f in wanted if f.kind == "category"]
    else:
        most, categories = TEXTS_MAX, [*options.category_columns]
    for name in categories:
        require_column(where, name, names)
    return {name: Texts(where, name, most, known.get(name)) for name in categories}


def refuse_categories(where: str, options: FileOptions, wanted: Sequence[Feature] | None) -> None:
    """Refuse categories for a file that cannot hold any.

    Raises:
        DataError: some of the features are categories.
    """
    if options.category_columns or any(feature.kind == "category" for feature in wanted or ()):
        raise DataError(
            f"{where} is an NPZ file, which holds numbers alone; wanted CSV, Parquet or JSON "
            "lines, because some of the features are categories"
        )


def recoded(table: Table, known: Mapping[str, Sequence[str]], *, in_place: bool = False) -> Table:
    """Return the table with its categories coded by the lists `known`, as a model wants them.

    A text that is not on its column's list gets the length of the list; a missing one stays NaN.
    `in_place` changes the features where they are, for rows that are not to be held twice.
    """
    if not known:
        return table
    features = table.features if in_place else table.features.copy()
    for name, categories in known.items():
        codes = Codes.of(categories)
        # The last two are for a text that had no place on the old list, and for none at all.
        new = [*(codes[text] for text in table.categories[name]), len(codes), np.nan]
        column = features[:, table.names.index(name)]
        old = np.where(np.isnan(column), len(new) - 1, column).astype(np.intp)
        column[:] = np.array(new, np.float32)[old]
    lists = {name: tuple(categories) for name, categories in known.items()}
    return replace(table, features=features, categories={**table.categories, **lists})
