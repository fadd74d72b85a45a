"""Where rows go as a file is read: into memory, and beyond a limit into a scratch file.

The scratch file has no name, so that the system removes it when the program ends, however it ends.
It is mapped into memory: its pages count as cache, which the system takes back when others need
memory, as long as the folder is on a disk (a tmpfs is memory).
"""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np

from schemas.calibration import Floats
from schemas.errors import OutsideError

# 1.2 million rows of 57 numbers; joined to one array they take twice as much for a moment.
MEMORY_BYTES_MAX = 2**28
# What is done to all rows is done to so many at a time.
BLOCK_ROWS = 2**16


class RowStore:
    """Rows of float32, appended block by block, each row of one width."""

    def __init__(
        self,
        memory_bytes_max: float = MEMORY_BYTES_MAX,
        scratch: Path | None = None,
        told: Callable[[int], None] | None = None,
    ) -> None:
        """Take `scratch`, else the system's folder for such files; `told` hears of all rows."""
        self._memory_bytes_max = memory_bytes_max
        self._scratch = scratch
        self._told = told
        self._blocks: list[Floats] = []
        self._bytes = 0
        self._file: IO[bytes] | None = None
        self.count = 0

    def append(self, rows: Floats) -> None:
        """Append rows [n, d].

        Raises:
            OutsideError: the scratch file cannot be written; the text names its folder.
        """
        self.count += len(rows)
        self._bytes += rows.nbytes
        self._blocks.append(rows)
        if self._file is not None or self._bytes > self._memory_bytes_max:
            self._spill()
        if self._told is not None:
            self._told(self.count)

    def rows(self, width: int) -> Floats:
        """Return all rows so far, [n, width]; those of a scratch file are mapped, to be changed."""
        if self._file is not None:
            return np.memmap(self._file, np.float32, "r+", shape=(self.count, width))
        if len(self._blocks) != 1:
            joined = np.concatenate([np.empty((0, width), np.float32), *self._blocks])
            self._blocks = [joined]
        return self._blocks[0]

    def _spill(self) -> None:
        folder = self._scratch or Path(tempfile.gettempdir())
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # It outlives this.
                weakref.finalize(self, self._file.close)
            for block in self._blocks:
                self._file.write(np.ascontiguousarray(block).data)
            self._file.flush()
        except OSError as error:
            raise OutsideError(
                f"the rows take more than {self._memory_bytes_max:,} bytes, and the scratch file "
                f"for them in {folder} cannot be written after {self._bytes:,}: "
                f"{error.strerror or error}. Nothing was trained; name a folder on a disk with "
                "room for them with --scratch"
            ) from None
        self._blocks = []
