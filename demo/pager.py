"""Prints every alert that Alertmanager sends it, one line each: `python -m demo.pager`.

The stack's receiver, in the place of a pager or a chat: it needs no account, and
`docker compose logs pager` shows what a person on call would have been told, and when.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

PORT = 9199
BODY_BYTES_MAX = 2**20


def lines(notification: dict[str, Any]) -> Iterator[str]:
    """Yield a line for each alert of one notification, in Alertmanager's webhook format."""
    for alert in notification.get("alerts", ()):
        labels, annotations = alert.get("labels", {}), alert.get("annotations", {})
        yield (
            f"{alert.get('status', 'unknown').upper()} {labels.get('alertname', 'unnamed')} "
            f"[{labels.get('severity', 'none')}] {annotations.get('summary', '')} "
            f"({annotations.get('runbook_url', 'no runbook')})"
        )


class Pager(BaseHTTPRequestHandler):
    """One notification a POST; 400 for anything else, which Alertmanager then logs."""

    timeout = 10  # A client that says nothing would keep the others out.

    def do_POST(self) -> None:  # The name that http.server calls.
        try:
            length = min(int(self.headers.get("Content-Length", 0)), BODY_BYTES_MAX)
            told = list(lines(json.loads(self.rfile.read(length))))
        except (ValueError, AttributeError, TypeError) as error:
            self.send_error(400, f"not a notification of Alertmanager's: {error}")
            return
        for line in told:
            print(f"{datetime.now(UTC):%H:%M:%S} {line}", flush=True)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing of the requests themselves."""


def main() -> int:
    """Serve until SIGTERM or Ctrl-C."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    with HTTPServer(("", PORT), Pager) as server:
        print(f"waiting for alerts on port {PORT}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
