"""What to say of a cell that should be a number and is not: whatever it is, there is a way out."""

from __future__ import annotations

import re

from schemas.errors import DataError

# 2026-01-31 or 31/01/2026, and a time behind it.
_DATE = re.compile(
    r"(\d{4}([-/.])\d{1,2}\2\d{1,2}|\d{1,2}([-/.])\d{1,2}\3\d{4})([T ].*)?", re.IGNORECASE
)


def not_a_number(
    where: str, place: str, column: str, what: str, *, is_date: bool = False
) -> DataError:
    """Return the error for a cell of a feature that is no number, with the ways out."""
    ways_out = (
        f"A date is no number. If it is the event's time, name it with --timestamp-column {column} "
        "--timestamp-kind rfc3339; else write what matters of it as a number, such as the hour or "
        f"the days since another, or leave it out with --drop-column {column}"
        if is_date
        else f"If it is a category, such as a country, name it with --category-column {column}; if "
        f"it is no feature, leave it out with --drop-column {column}, or say what it is: "
        "--id-column, --timestamp-column, --label-column"
    )
    return DataError(
        f"{where}, {place}, column {column!r}: {what}; wanted a number, or nothing where it is "
        f"missing. {ways_out}"
    )


def is_date(text: str) -> bool:
    """Return whether a text that is no number looks like a date: 2026-01-31, 31/01/2026."""
    return _DATE.fullmatch(text.strip()) is not None
