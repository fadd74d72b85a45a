"""A page by HTTP, within a deadline and a size, whatever the other side does."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from urllib.parse import urlsplit

BODY_MAX = 16 * 2**20  # Bytes. A worker's page has less than one MiB.


def fetch(url: str, within_s: float) -> str:
    """Return the text at an http or https address.

    No proxy is asked: workers are near, and one for the world outside may not reach them. Only the
    look-up of a name may take longer than `within_s`: the system's resolver cannot be cut short.

    Raises:
        OSError, ValueError: there is none, or not within these bounds.
    """
    deadline = time.monotonic() + within_s
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    try:
        connection = kind(parts.hostname or "", parts.port, timeout=within_s)
        with closing(connection):
            connection.connect()
            with _ending(connection.sock, deadline):
                return _body(connection, parts.path + (f"?{parts.query}" if parts.query else ""))
    except TimeoutError:
        raise TimeoutError(late(within_s)) from None
    except http.client.HTTPException as error:
        raise OSError(f"it does not speak HTTP: {error!r}") from None


def late(within_s: float) -> str:
    """Return how it is said that an answer did not come in time."""
    return f"no whole answer within {within_s:g} s"


def _body(connection: http.client.HTTPConnection, path: str) -> str:
    connection.request("GET", path, headers={"Connection": "close"})
    answer = connection.getresponse()
    if answer.status != http.client.OK:
        raise OSError(f"it answers {answer.status} {answer.reason}")
    body = answer.read(BODY_MAX + 1)
    if len(body) > BODY_MAX:
        raise ValueError(f"its answer is larger than {BODY_MAX // 2**20} MiB")
    if answer.length:  # Known from its head, and not come.
        raise OSError(f"its answer lacks the last {answer.length} bytes")
    return body.decode()


@contextmanager
def _ending(sock: socket.socket, deadline: float) -> Iterator[None]:
    """Have a socket end at the deadline: its own timeout is of each receive, and a byte is one.

    Raises:
        TimeoutError: it was ended, whatever that looked like inside.
    """
    ended = threading.Event()

    def end() -> None:
        ended.set()
        with suppress(OSError):  # The other side was first.
            socket.socket.shutdown(sock, socket.SHUT_RDWR)  # Of TLS too, without its farewell.

    timer = threading.Timer(max(0.0, deadline - time.monotonic()), end)
    timer.daemon = True
    timer.start()
    try:
        yield
    except (OSError, ValueError, http.client.HTTPException):
        if not ended.is_set():
            raise
    finally:
        timer.cancel()
    if ended.is_set():
        raise TimeoutError
