"""Endpoints that answer as no HTTP server should, and a terminal to watch them in."""

from __future__ import annotations

import os
import pty
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

Answer = Callable[[socket.socket], None]
DRIP_S = 0.05


@contextmanager
def answering(answer: Answer) -> Iterator[str]:
    """Accept connections and answer each once its request is here; HOST:PORT."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def one(connection: socket.socket) -> None:
            with connection, suppress(OSError):  # It is not listened to any more.
                connection.recv(65_536)
                answer(connection)

        def serve() -> None:
            with suppress(OSError):  # The server is closed.
                while True:
                    connection, _ = server.accept()
                    threading.Thread(target=one, args=(connection,), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield "{}:{}".format(*server.getsockname())
        server.shutdown(socket.SHUT_RDWR)


def at_once(data: bytes) -> Answer:
    """Answer this, and close."""
    return lambda connection: connection.sendall(data)


def drip(head: bytes) -> Answer:
    """Answer this, and then one byte after another, until nobody listens."""

    def answer(connection: socket.socket) -> None:
        connection.sendall(head)
        while True:
            connection.sendall(b"x")
            time.sleep(DRIP_S)

    return answer


def a_page(body: str) -> bytes:
    """A whole and proper answer."""
    data = body.encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data) + data


@contextmanager
def in_a_terminal(
    *arguments: str,
) -> Iterator[tuple[subprocess.Popen[bytes], Callable[[bytes], bool]]]:
    """Run `top` in a terminal: the process, and whether it has drawn something."""
    ours, theirs = pty.openpty()
    drawn = bytearray()

    def drew(what: bytes) -> bool:
        while select.select([ours], [], [], 0)[0]:
            try:
                drawn.extend(os.read(ours, 65_536))
            except OSError:  # The other end is closed.
                break
        return what in drawn

    with subprocess.Popen(
        [sys.executable, "-m", "worker", "top", *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=subprocess.PIPE,
        # Not ignored: a shell that runs this in the background ignores SIGINT for its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as child:
        os.close(theirs)
        try:
            yield child, drew
        finally:
            child.kill()
    os.close(ours)
