"""A port of 127.0.0.1: one that is free, and what the Kafka at one says of itself.

This module owns the choice of ports, and the few bytes of Kafka's protocol that we speak ourselves.

1. A chosen port lies where no outgoing connection takes it from a broker that comes back, and is
   chosen once.
2. A Kafka that is absent, frozen or too slow answers "no": a question never raises.
3. A question takes one connection, closed with the answer: nothing is kept, retried or logged.

It starts nothing, and knows no records: those are for a real client.
"""

import fcntl
import os
import random
import socket
import struct
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

HOST = "127.0.0.1"
# Below every system's ephemeral range, from which an outgoing connection could take a killed
# broker's port before it comes back.
PORTS = range(20_000, 32_000)
_given: set[int] = set()

API_VERSIONS, FIND_COORDINATOR = 18, 10
COORDINATOR_KINDS = (0, 1)  # Of a group, of a transaction.
NO_ERROR = struct.pack(">h", 0)
COORDINATOR_NOT_YET = {struct.pack(">h", error) for error in (14, 15, 16)}
CLIENT = b"odradek"


class BrokerUnavailable(RuntimeError):
    """There is no broker, for a reason outside our code: the download, Java, a port, Kafka."""


def free_port(among: Sequence[int] = PORTS) -> int:
    """Return a port of 127.0.0.1 on which a server could listen a moment ago.

    It is given once in the life of this process, and to no other that asks meanwhile: the server
    may take seconds to listen there.
    """
    ledger = _ledger()
    # By the system's randomness: two processes with one seed need not try the same ports.
    for port in random.SystemRandom().sample(among, len(among)):
        with suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # As Java does.
            probe.bind((HOST, port))
            if port not in _given:
                # A lock of one byte of a file, let go as this process ends, however it ends.
                fcntl.lockf(ledger, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
                _given.add(port)
                return port
    raise BrokerUnavailable(
        f"Every port from {among[0]} to {among[-1]} is in use, wanted a free one."
    )


@cache
def _ledger() -> int:
    """Open the file, and never close it: that would let go of every lock."""
    path = Path(tempfile.gettempdir()) / f"odradek-ports-{os.getuid()}"
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)


def answers(port: int, timeout_s: float = 1.0) -> bool:
    """Say whether a Kafka at this port of 127.0.0.1 answers an ApiVersions request in time."""
    with suppress(OSError):
        error = _ask(port, API_VERSIONS, 0, b"", timeout_s)[:2]
        return error == NO_ERROR
    return False


def has_coordinators(port: int, timeout_s: float = 1.0) -> bool:
    """Say whether groups and transactions can be served, and have that made true if not.

    Kafka makes its two inner topics when a client first asks, which takes 0.1 s; but a client that
    hears "not yet" sleeps on it: 3.2 s to a group's first message, against 0.3 s when asked before.
    """
    with suppress(OSError):
        for kind in COORDINATOR_KINDS:
            body = struct.pack(f">h{len(CLIENT)}sb", len(CLIENT), CLIENT, kind)
            throttled_ms_and_error = _ask(port, FIND_COORDINATOR, 1, body, timeout_s)[:6]
            if throttled_ms_and_error[4:] in COORDINATOR_NOT_YET:
                return False
        return True
    return False


def _ask(port: int, api_key: int, api_version: int, body: bytes, timeout_s: float) -> bytes:
    """Return the body of Kafka's reply to one request. Raises OSError where none comes in time."""
    head = struct.pack(f">hhih{len(CLIENT)}s", api_key, api_version, 0, len(CLIENT), CLIENT)
    with socket.create_connection((HOST, port), timeout_s) as connection:
        connection.sendall(struct.pack(">i", len(head + body)) + head + body)
        with connection.makefile("rb") as replies:
            size_and_correlation = replies.read(8)
            if len(size_and_correlation) < 8:
                raise ConnectionError(f"Port {port} hung up without a reply.")
            return replies.read(struct.unpack(">ii", size_and_correlation)[0] - 4)
