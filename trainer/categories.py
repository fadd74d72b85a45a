"""Which texts of a category a model knows, and which are too rare to be known.

All usable training rows are counted, those that calibrate among them: the list then holds every
text that the data can support. A text in fewer than `CATEGORY_ROWS_MIN` rows is left off, and its
rows have the code of an unseen one: so that the model has met what is unseen, and no column of the
graph is fitted to a handful of rows. Where unseen texts are refused, every text is known.

The list is sorted, so that it depends on the data and not on the order of its rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from schemas.category import CATEGORIES_MAX, total_complaints
from schemas.contract import UnseenPolicy
from schemas.datafiles import Table, recoded
from schemas.datafiles.categories import too_many
from schemas.errors import DataError

# On NSL-KDD (6,724 normal rows, three categories as one-hot numbers) the AUC was 97.4 without them,
# and 98.7, 98.7 and 99.0 where a text is known from 1, 10 and 50 rows on: rare texts are no loss.
# Not more than 10, so that small tables keep their categories.
CATEGORY_ROWS_MIN = 10
_WHERE = "the training data"


@dataclass(frozen=True)
class CategoryRows:
    """In how many rows each known text occurs, by its code, and what became of all other rows."""

    known: tuple[int, ...]
    rare_texts: int
    rare_rows: int
    missing_rows: int


def know_categories(
    table: Table, unseen: Mapping[str, UnseenPolicy]
) -> tuple[Table, dict[str, CategoryRows]]:
    """Give the rows the codes of the texts to be known; return them, and how often each occurs.

    `unseen` holds each category's policy. The table's rows are changed where they are.

    Raises:
        DataError: a column is no category: it has no text, too many, or none often enough.
    """
    lists: dict[str, list[str]] = {}
    rows: dict[str, CategoryRows] = {}
    for name, texts in table.categories.items():
        column = table.features[:, table.names.index(name)]
        present = column[~np.isnan(column)].astype(np.intp)
        counts = dict(zip(texts, np.bincount(present, minlength=len(texts)).tolist(), strict=True))
        least = 1 if unseen[name] == "refuse" else CATEGORY_ROWS_MIN
        lists[name] = sorted(text for text, count in counts.items() if count >= least)
        known = tuple(counts[text] for text in lists[name])
        _check(name, len(known), sum(map(bool, counts.values())), least)
        rows[name] = CategoryRows(
            known=known,
            rare_texts=sum(0 < count < least for count in counts.values()),
            rare_rows=len(present) - sum(known),
            missing_rows=len(column) - len(present),
        )
    for complaint in total_complaints(lists.values()):
        raise DataError(f"{_WHERE}: {complaint}. Leave one out with --drop-column")
    return recoded(table, lists, in_place=True), rows


def _check(name: str, known: int, texts: int, least: int) -> None:
    if not texts:
        raise DataError(
            f"no usable row has a text for the category {name!r}; wanted some. Leave it out with "
            f"--drop-column {name}"
        )
    often = "" if least == 1 else f" in {least} rows or more"
    if known > CATEGORIES_MAX:
        raise too_many(_WHERE, name, f"{known:,}{often}, of {texts:,}")
    if not known:
        raise too_many(_WHERE, name, f"none{often}, of {texts:,}")
