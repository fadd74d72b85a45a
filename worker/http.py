"""/metrics, /healthz and /readyz on one port, served by a thread of their own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from schemas.errors import OutsideError
from worker.health import Health

_TEXT = "text/plain; charset=utf-8"


def serve_http(
    host: str, port: int, registry: CollectorRegistry, health: Health, now: Callable[[], float]
) -> ThreadingHTTPServer:
    """Start to serve, and return the server; its `server_port` is the port (0 asks for any).

    Raises:
        OutsideError: the port cannot be had.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # The name that http.server calls.
            match self.path.partition("?")[0]:
                case "/metrics":
                    self._answer(200, CONTENT_TYPE_LATEST, generate_latest(registry))
                case "/healthz":
                    self._answer_health(health.why_not_alive(now()))
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

    try:
        server = ThreadingHTTPServer((host, port), Handler)
    except OSError as error:
        raise OutsideError(
            f"port {port} on {host} cannot be had for metrics and health ({error.strerror}); "
            "not starting. Set ODRADEK_HTTP_PORT to a free one, or to 0 for any"
        ) from None
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="http", daemon=True).start()
    return server
