"""The worker of the demonstration: the real program in a process of its own, started again if it
dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from demo.broker import free_port
from demo.process import start_child

READY_TIMEOUT_S = 40.0
STOP_TIMEOUT_S = 40.0
POLL_S = 0.05


class WorkerFailed(Exception):
    """The worker did not start, or kept dying; the text holds the end of its log."""


class WorkerProcess:
    """`odradek-worker run` with settings from the environment; its log goes to a file."""

    def __init__(self, settings: dict[str, str], log: Path) -> None:
        self.http_port = free_port()
        self.starts = 0
        self.log = log
        self.log.unlink(missing_ok=True)
        self._environment = {**os.environ, **settings, "ODRADEK_HTTP_PORT": str(self.http_port)}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, within: Sequence[str] = ()) -> None:
        """Start the worker, by the command `within` if there is one; do not wait."""
        self.starts += 1
        with self.log.open("ab") as log:
            self._process = start_child(
                [*within, sys.executable, "-m", "worker", "run"],
                new_session=True,
                env=self._environment,
                stdout=log,
                stderr=log,
            )

    def wait_until_ready(self) -> None:
        """Wait until /readyz says so.

        Raises:
            WorkerFailed: it died, or took too long.
        """
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not self._is_ready():
            if not self.running:
                raise WorkerFailed(f"the worker stopped before it was ready:\n{self._log_tail()}")
            if time.monotonic() > deadline:
                raise WorkerFailed(
                    f"the worker was not ready within {READY_TIMEOUT_S:g} s:\n{self._log_tail()}"
                )
            time.sleep(POLL_S)

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def kill(self) -> None:
        """kill -9, as a machine that fails would."""
        if self._process:
            self._process.kill()
            self._process.wait()

    def stop(self) -> int | None:
        """Stop as an orchestrator would, with SIGTERM; return the exit code, None if it was cut."""
        if self._process is None:
            return None
        if self.running:
            self._process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int | None:
        """Wait until it has ended by itself; return the exit code, None if it had to be cut."""
        if self._process is None:
            return None
        try:
            return self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return None

    def _is_ready(self) -> bool:
        try:
            url = f"http://127.0.0.1:{self.http_port}/readyz"
            with urllib.request.urlopen(url, timeout=1):
                return True
        except (urllib.error.URLError, OSError):
            return False

    def _log_tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
