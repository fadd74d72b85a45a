"""What a page is made of, and how numbers and names are written on it.

A `Section` says something in sentences, plots and listings. All text is plain: the template
escapes it, whatever it holds. Listings are bounded, so that a page stays a page.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LISTING_ROWS_MAX = 50
_UNFOLDED_MAX = 40
TEXT_CHARS_MAX = 80
_ITEMS_MAX = 8


@dataclass(frozen=True)
class Listing:
    """A table: a row's first cell is its header. `total`: how many rows there are in all.

    A long one is folded: it shows its title alone until the reader unfolds it.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    total: int

    @property
    def folded(self) -> bool:
        return len(self.rows) > _UNFOLDED_MAX

    @classmethod
    def of(cls, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Listing:
        """List the first rows, as many as a page bears."""
        shown = tuple(tuple(map(written, row)) for row in rows[:LISTING_ROWS_MAX])
        return cls(title, tuple(columns), shown, len(rows))


@dataclass(frozen=True)
class Plot:
    """A picture: `svg` as it goes into the page, `alt` for who cannot see it, and its numbers."""

    title: str
    alt: str
    svg: str
    caption: str
    numbers: Listing


@dataclass(frozen=True)
class Absent:
    """What the page lacks, and the command that brings it."""

    what: str
    command: str


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it, in this order."""

    name: str
    title: str
    sentences: tuple[str, ...] = ()
    absent: Absent | None = None
    plots: tuple[Plot, ...] = ()
    listings: tuple[Listing, ...] = ()


def written(value: object, chars_max: int = TEXT_CHARS_MAX) -> str:
    """Return any value as text of a bounded length, on one line, with nothing invisible in it."""
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    text = "".join(mark if mark.isprintable() else "\ufffd" for mark in str(value))
    return text if len(text) <= chars_max else text[: chars_max - 1] + "…"


def percent(share: float) -> str:
    """Return a share, 0 to 1, in percent to three digits."""
    return f"{100 * share:.3g}%"


def flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, object]]:
    """Yield dotted names and their values; a long list is only counted."""
    for name, value in values.items():
        place = f"{above}{name}"
        if isinstance(value, Mapping):
            yield from flat(value, f"{place}.")
        elif isinstance(value, list | tuple):
            few = len(value) <= _ITEMS_MAX and not any(isinstance(x, dict | list) for x in value)
            yield place, ", ".join(map(written, value)) if few else f"{len(value):,} in all"
        else:
            yield place, value


def mapping(value: object) -> Mapping[str, Any]:
    """Return a mapping as it is, and anything else, which a record may hold, as an empty one."""
    return value if isinstance(value, Mapping) else {}
