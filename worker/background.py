"""A call of a client that may never come back, in a thread of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Call:
    """A call under way. Its thread ends with the process: one that hangs holds up nothing."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.error: Exception | None = None
        self.began = time.monotonic()
        self._call = call
        self._over = threading.Event()
        threading.Thread(target=self._run, name="call", daemon=True).start()

    def wait(self, wait_s: float) -> bool:
        """Return whether it has come back; wait at most `wait_s` for it."""
        return self._over.wait(wait_s)

    def _run(self) -> None:
        try:
            self._call()
        except Exception as error:  # noqa: BLE001  # Told to whoever waits.
            self.error = error
        self._over.set()
