"""SIGTERM and SIGINT: an orderly stop at the first, at once at the second."""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
from collections.abc import Callable
from types import FrameType

from schemas.errors import OutsideError
from worker.service import Worker

log = logging.getLogger(__name__)

# Beyond the stop limit something hangs that has no limit of its own (a client's close).
WATCHDOG_MARGIN_S = 5.0


class Signals:
    """Hears both signals from its making on.

    Before there is a worker to stop, the first ends the program: it holds nothing yet. An end that
    hangs, orderly or not, is cut: every thread's stack on stderr, and exit code 1.
    """

    def __init__(self, stop_timeout_s: float) -> None:
        self.stop: Callable[[], None] | None = None
        self._stop_timeout_s = stop_timeout_s
        self._stopping = False
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)

    def live(self, worker: Worker) -> None:
        """Run a worker until it is told to stop.

        Raises:
            OutsideError: it cannot go on.
        """
        self.stop = worker.stop
        try:
            worker.run()
        except OutsideError as error:
            # Said now: leaving the group may take its time, or be cut.
            log.error("Stopping: %s", error)
            self.cut_what_hangs()
            raise

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        if self._stopping:
            log.error("Second signal: stopping at once. Unacknowledged records are read again.")
            os._exit(128 + number)
        self._stopping = True
        name = signal.Signals(number).name
        if self.stop is None:
            log.info("%s before the first turn: nothing to settle.", name)
            raise SystemExit(0)
        log.info("%s: settling the turn in hand, for at most %g s.", name, self._stop_timeout_s)
        self.cut_what_hangs()
        self.stop()

    def cut_what_hangs(self) -> None:
        """From now on this process has the stop limit to end, and a little more."""
        faulthandler.dump_traceback_later(self._stop_timeout_s + WATCHDOG_MARGIN_S, exit=True)
