"""Figures that others have published for the tabular sets, from `FOLDER/published/*.csv`."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from bench.detectors.trials import Protocol

FILES: dict[Protocol, str] = {
    "dte": "dte_semi_aucroc.csv",
    "dean": "dean_oneclass_aucroc.csv",
}
# Beside the best: what the detectors here can be checked against.
SHOWN = ("KNN", "AE")
BEST = 3


class Column(NamedTuple):
    """A published detector's areas in percent, by set in lower case."""

    name: str
    areas: dict[str, float]


def read(folder: Path, protocol: Protocol) -> list[Column]:
    """Return the published columns for a protocol; none if the file is not there."""
    path = folder / "published" / FILES.get(protocol, "none")
    if not path.is_file():
        return []
    with path.open(newline="") as held:
        header, *rows = list(csv.reader(held))[1:]
    return [
        Column(name, {row[0].lower(): _number(row[place]) for row in rows if len(row) > place})
        for place, name in enumerate(header)
        if place
    ]


def chosen(columns: list[Column], sets: list[str]) -> list[Column]:
    """Return the best columns by their mean over these sets, and those that are always shown.

    Which are best is known from the same labelled sets: the bar is as high as it can be.
    """
    wanted = [name.lower() for name in sets]
    whole = [column for column in columns if column.areas.keys() >= set(wanted)]
    if not wanted:
        return []
    ordered = sorted(whole, key=lambda column: -fmean(column.areas[name] for name in wanted))
    return ordered[:BEST] + [column for column in ordered[BEST:] if column.name in SHOWN]


def _number(text: str) -> float:
    """Read 92.0(0.5), **92.0(0.5)** or 92%."""
    found = re.search(r"\d+(\.\d+)?", text)
    return float(found.group()) if found else float("nan")
