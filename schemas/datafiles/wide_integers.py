"""Columns of integers, such as epoch milliseconds, that are fewer as 32-bit floats.

Found block by block, and kept in little memory: only integers that no float32 is equal to are
remembered, and of them there are few before two fall together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]


class WideIntegers:
    """Which of some columns float32 collapses."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._columns = [_Column() for _ in names]

    def add(self, features: npt.NDArray[np.floating[Any]]) -> None:
        """Look at rows [n, d], as wide as the file has them, none beyond float32."""
        if features.dtype.itemsize <= 4:
            return  # Nothing is lost; and a file's columns have one type from end to end.
        inexact = (features != features.astype(np.float32)) & ~np.isnan(features)
        fractions = (features != np.trunc(features)) & ~np.isnan(features)
        for column, place in zip(self._columns, range(features.shape[1]), strict=True):
            column.add(features[inexact[:, place], place], bool(fractions[:, place].any()))

    def collapsed(self, stored: Callable[[int], npt.NDArray[np.float32]]) -> list[str]:
        """Return the columns that collapse; `stored` gives all rows of one as float32."""
        columns = zip(self._names, self._columns, strict=True)
        return [
            name
            for place, (name, column) in enumerate(columns)
            if column.collapses(partial(stored, place))
        ]


class _Column:
    def __init__(self) -> None:
        self._fractions = False
        self._together = False
        self._inexact: Doubles = np.empty(0)
        self._inexact_rows = 0

    def add(self, inexact: Doubles, fractions: bool) -> None:
        self._fractions |= fractions
        if self._fractions or self._together or not len(inexact):
            return
        self._inexact = np.unique(np.concatenate([self._inexact, inexact]))
        self._inexact_rows += len(inexact)
        self._together = len(np.unique(self._inexact.astype(np.float32))) < len(self._inexact)

    def collapses(self, stored: Callable[[], npt.NDArray[np.float32]]) -> bool:
        if self._fractions or not len(self._inexact):
            return False
        # Or an integer that is a float32 falls together with one that is not.
        images = self._inexact.astype(np.float32)
        return self._together or int(np.isin(stored(), images).sum()) > self._inexact_rows
