"""The rows that a network is trained on: held prepared, or prepared a batch at a time.

- Up to `SAMPLE_VALUES_MAX` values, all fit rows are held as the network sees them, and a pass over
  them is one random order: `HeldRows`.
- More stay where the reader put them (`schemas.datafiles.store`: memory, or a scratch file), and a
  batch is prepared when it is its turn: `StoredRows`. What looks at many rows at once (transforms,
  views, the residuals' variances) is then fitted to a random sample of them, of so many values.

Which of the two it is depends on how many rows there are, and never on where they lie: the same
rows give the same model on any machine.

A pass over stored rows is not one random order, for a row at random from a file that does not fit
into memory is a read from the disk: blocks of neighbouring rows come in random order, and the rows
of every `_WINDOW_BLOCKS` of them are shuffled together. A batch then has rows of dozens of places
in the file, and a pass reads the file once. From 10 million rows of 57 numbers that were not in the
system's cache, a batch of 128 took 0.8 to 1.2 ms so, and 10 ms at random; a step takes some 1.5.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainer.transforms import Prepared

# 294,337 rows of 57 columns, 64 MiB in float32: twenty such copies are what fitting the views to
# them takes, and a quantile of one in a hundred is then known to 0.02 in a hundred.
SAMPLE_VALUES_MAX = 2**24
# The training loss of stored rows is averaged over so many of the sample: to within 1 %.
_SHOWN_ROWS_MAX = 100_000
# Rows of 57 numbers: a block is 228 KiB, some reads ahead of a disk; a window is 15 MiB.
_BLOCK_ROWS = 1024
_WINDOW_BLOCKS = 64


class TrainingRows(Protocol):
    """Rows to train on, numbered from 0; `shown` are those whose loss is watched."""

    @property
    def shown(self) -> Prepared: ...

    def __len__(self) -> int: ...

    def order(self, draws: torch.Generator) -> Tensor:
        """Return the row numbers [n] in the order of one pass over them."""
        ...

    def take(self, numbers: Tensor) -> Prepared:
        """Return the rows of these numbers."""
        ...


class HeldRows:
    """Rows that are prepared already."""

    def __init__(self, rows: Prepared) -> None:
        self.shown = rows

    def __len__(self) -> int:
        return len(self.shown.network)

    def order(self, draws: torch.Generator) -> Tensor:
        return torch.randperm(len(self), generator=draws)

    def take(self, numbers: Tensor) -> Prepared:
        return Prepared(*(part[numbers] for part in self.shown))


class StoredRows:
    """Rows that are prepared when they are taken.

    `numbers` say which they are to `prepare`; they are best sorted, so that neighbours are near.
    """

    def __init__(
        self,
        numbers: npt.NDArray[np.int64],
        prepare: Callable[[npt.NDArray[np.int64]], Prepared],
        sample: Prepared,
    ) -> None:
        self._numbers = numbers
        self._prepare = prepare
        self.shown = Prepared(*(part[:_SHOWN_ROWS_MAX] for part in sample))

    def __len__(self) -> int:
        return len(self._numbers)

    def order(self, draws: torch.Generator) -> Tensor:
        n = len(self)
        starts = torch.randperm(-(-n // _BLOCK_ROWS), generator=draws) * _BLOCK_ROWS
        windows = []
        for first in range(0, len(starts), _WINDOW_BLOCKS):
            some = starts[first : first + _WINDOW_BLOCKS]
            rows = (some[:, None] + torch.arange(_BLOCK_ROWS)).ravel()
            rows = rows[rows < n]  # The last block may be shorter.
            windows.append(rows[torch.randperm(len(rows), generator=draws)])
        return torch.cat(windows)

    def take(self, numbers: Tensor) -> Prepared:
        return self._prepare(self._numbers[numbers.numpy()])


def rows_max(columns: int) -> int:
    """Return how many rows of so many columns are held, and looked at together."""
    return max(1, SAMPLE_VALUES_MAX // columns)


class Batches:
    """Batches of rows in random order, pass after pass, and where in them a training stands."""

    def __init__(self, rows: TrainingRows, edges: Sequence[int], draws: torch.Generator) -> None:
        """Cut each pass at `edges`, which begin with 0; what lies after the last is left out."""
        self._rows = rows
        self._edges = edges
        self._draws = draws
        self._at = len(edges) - 1  # At the end of a pass: the first batch begins one.
        self._drawn_from = draws.get_state()
        self._order = torch.empty(0, dtype=torch.int64)

    def next(self) -> Prepared:
        """Return the next batch."""
        if self._at == len(self._edges) - 1:
            self._at = 0
            self._draw()
        start, end = self._edges[self._at : self._at + 2]
        self._at += 1
        return self._rows.take(self._order[start:end])

    def state(self) -> dict[str, Any]:
        """Return where it stands; the order itself is drawn again."""
        return {"at": self._at, "drawn_from": self._drawn_from, "draws": self._draws.get_state()}

    def resume(self, state: dict[str, Any]) -> None:
        """Go to where `state` was taken."""
        self._draws.set_state(state["drawn_from"])
        self._at = state["at"]
        self._draw()
        self._draws.set_state(state["draws"])

    def _draw(self) -> None:
        self._drawn_from = self._draws.get_state()
        self._order = self._rows.order(self._draws)
