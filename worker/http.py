"""/metrics, /healthz and /readyz on one port, served by a thread of their own.

The first probe that finds the worker stuck has the stacks of all threads logged: an orchestrator
that restarts it takes the evidence away.
"""

from __future__ import annotations

import errno
import logging
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from schemas.errors import OutsideError
from worker.health import Health

log = logging.getLogger(__name__)

_TEXT = "text/plain; charset=utf-8"
_CLIENT_TIMEOUT_S = 10.0  # Of a client that says nothing, or does not listen.


class _Server(ThreadingHTTPServer):
    daemon_threads = True  # A scrape under way does not keep a worker that ends.

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002
        """Take note of an answer that failed: mostly, its client did not wait for it."""
        gone = isinstance(sys.exception(), OSError)
        log.log(logging.DEBUG if gone else logging.ERROR, "An answer failed.", exc_info=True)


class _Server6(_Server):
    address_family = socket.AF_INET6


def serve_http(
    host: str, port: int, registry: CollectorRegistry, health: Health, now: Callable[[], float]
) -> ThreadingHTTPServer:
    """Start to serve, and return the server; its `server_port` is the port (0 asks for any).

    Raises:
        OutsideError: the port cannot be had.
    """
    try:
        kind = _Server6 if ":" in host else _Server
        server = kind((host, port), _handler(registry, health, now))
    except OSError as error:
        advice = "ODRADEK_HTTP_HOST to an address of this machine"
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            advice = "ODRADEK_HTTP_PORT to a free one, or to 0 for any"
        raise OutsideError(
            f"port {port} on {host} cannot be had for metrics and health ({error.strerror}); "
            f"not starting. Set {advice}"
        ) from None
    threading.Thread(target=server.serve_forever, name="http", daemon=True).start()
    return server


def _handler(
    registry: CollectorRegistry, health: Health, now: Callable[[], float]
) -> type[BaseHTTPRequestHandler]:
    """Return what answers requests."""
    stuck = Stuck()

    class Handler(BaseHTTPRequestHandler):
        timeout = _CLIENT_TIMEOUT_S

        def do_GET(self) -> None:  # The name that http.server calls.
            match self.path.partition("?")[0]:
                case "/metrics":
                    self._answer(200, CONTENT_TYPE_LATEST, generate_latest(registry))
                case "/healthz":
                    why_not = health.why_not_alive(now())
                    stuck.note(why_not)
                    self._answer_health(why_not)
                case "/readyz":
                    self._answer_health(health.why_not_ready(now()))
                case path:
                    self._answer(
                        404,
                        _TEXT,
                        f"{path} is not here; /metrics, /healthz, /readyz are\n".encode(),
                    )

        def _answer_health(self, why_not: str | None) -> None:
            self._answer(503 if why_not else 200, _TEXT, f"{why_not or 'ok'}\n".encode())

        def _answer(self, status: int, content_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing: a probe a second is not news."""

    return Handler


class Stuck:
    """Logs the stacks of all threads when the worker is found to be stuck: once, until it is not
    any more."""

    def __init__(self) -> None:
        self._probes = threading.Lock()  # They may come at the same time.
        self._stuck = False

    def note(self, why_not_alive: str | None) -> None:
        """Take note of what a probe found."""
        with self._probes:
            before, self._stuck = self._stuck, why_not_alive is not None
        if self._stuck and not before:
            log.error("Stuck: %s. Its threads:\n%s", why_not_alive, stacks())


def stacks() -> str:
    """Return the stacks of all threads, each under its thread's name."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return "\n".join(
        f"thread {names.get(ident, 'of no name')}:\n{''.join(traceback.format_stack(frame))}"
        for ident, frame in sys._current_frames().items()
    )
