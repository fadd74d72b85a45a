"""A network that fails on demand: a TCP proxy of our own between clients and a broker.

This module owns the proxy's thread, its listening port, and every connection through it.

1. A fault is in force when the call that asks for it returns; so is its end.
2. What passes, passes whole and in order: a fault delays bytes or cuts connections, never more.
3. After `close` there is no thread and no socket.

It knows no Kafka but the names of a broker's second listener (`properties_behind`). Clients that
bootstrap at the proxy stay on it, because that listener is advertised at the proxy's port.
"""

from __future__ import annotations

import asyncio
import enum
import socket
import struct
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

from demo.kafka_wire import HOST, free_port

CHUNK = 65_536
CHUNKS_IN_FLIGHT = 64  # What a direction may hold back while it is delayed: 4 MiB.
SLICES_PER_S = 20  # A limited direction sends so often, for the sake of small limits.
CALL_S = 10.0
NO_LINGER = struct.pack("ii", 1, 0)  # A close then sends a reset, and leaves no TIME_WAIT behind.


class Direction(enum.Enum):
    """A way through the proxy."""

    TO_BROKER = enum.auto()
    TO_CLIENT = enum.auto()


BOTH = tuple(Direction)


@dataclass
class _Link:
    """What one direction does to the bytes that go through it, over all connections."""

    stalled: bool = False
    latency_s: float = 0.0
    bytes_per_s: float | None = None
    bytes_until_cut: int | None = None
    free_at: float = 0.0  # When a limited link has sent what was given to it.
    passed: int = 0


# What was taken and not yet given: when, and the bytes.
_Held = asyncio.Queue[tuple[float, bytes | None]]


class Proxy:
    """Passes bytes between a port of its own and a broker's, as well or as badly as told.

    Faults add up until `heal`. All methods may be called from any thread but the proxy's own.
    """

    def __init__(self, target_port: int, port: int | None = None) -> None:
        self.target_port = target_port
        self.port = port or free_port()
        self.accepted = 0  # Connections since the start.
        self._links = {direction: _Link() for direction in Direction}
        self._connections: set[asyncio.Task[None]] = set()
        self._listener: socket.socket | None = None
        self._is_cut = self._is_shut = False
        self._changed = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Listen, and pass everything. Raises OSError where the port is taken."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy-{self.port}")
        self._thread.start()
        try:
            self._do(self._listen)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End every connection and the thread. May be called again."""
        if self._loop is None or self._thread is None:
            return
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._loop = None

    @property
    def address(self) -> str:
        """Return the address at which clients bootstrap."""
        return f"{HOST}:{self.port}"

    @property
    def open_connections(self) -> int:
        """Return how many connections pass through now."""
        return len(self._connections)

    def passed(self, direction: Direction) -> int:
        """Return how many bytes have gone out in this direction since the start."""
        return self._links[direction].passed

    def delay(self, latency_s: float, *directions: Direction) -> None:
        """Let every byte take so much longer in these directions; both, if none is named."""
        self._change(lambda link: setattr(link, "latency_s", latency_s), directions)

    def limit(self, bytes_per_s: float, *directions: Direction) -> None:
        """Let each of these directions pass so much a second, its connections together."""
        self._change(lambda link: setattr(link, "bytes_per_s", bytes_per_s), directions)

    def stall(self, *directions: Direction) -> None:
        """Be a black hole: connections are accepted and stay open, and nothing comes out.

        What went in comes out after `heal`, as after a network that lost and resent it.
        """
        self._change(lambda link: setattr(link, "stalled", True), directions)

    def cut_after(self, count: int, direction: Direction) -> None:
        """Pass exactly so many more bytes this way, then reset every connection, once."""
        if count < 1:
            raise ValueError(
                f"{count} bytes until the cut, wanted at least 1: `reset` cuts at once"
            )
        self._change(lambda link: setattr(link, "bytes_until_cut", count), (direction,))

    def cut(self) -> None:
        """Reset every connection and refuse new ones, until `heal`."""
        self._is_cut = True
        self._do(self._refuse)
        self._do(self._reset_all)

    def shut(self) -> None:
        """As `cut`, but until `open`: `heal` does not end it."""
        self._is_shut = True
        self._do(self._refuse)
        self._do(self._reset_all)

    def open(self) -> None:
        """End `shut`."""
        self._is_shut = False
        self._do(self._listen)

    def reset(self) -> None:
        """Reset every connection; new ones are welcome."""
        self._do(self._reset_all)

    def heal(self) -> None:
        """End all faults. What was held back goes on; clients of a cut one may come back."""

        async def all_well() -> None:
            for link in self._links.values():
                link.stalled, link.latency_s, link.bytes_per_s = False, 0.0, None
                link.bytes_until_cut = None
            self._wake()
            self._is_cut = False
            await self._listen()

        self._do(all_well)

    def _change(self, change: Callable[[_Link], None], directions: tuple[Direction, ...]) -> None:
        async def apply() -> None:
            for direction in directions or BOTH:
                change(self._links[direction])
                self._links[direction].free_at = 0.0
            self._wake()

        self._do(apply)

    def _do(self, what: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Have this done in the proxy's thread, and wait until it is."""
        if self._loop is None:
            raise RuntimeError("The proxy does not run, wanted a started one: call start().")
        asyncio.run_coroutine_threadsafe(what(), self._loop).result(CALL_S)

    # All that follows runs in the proxy's thread.

    async def _listen(self) -> None:
        if self._listener is None and not self._is_cut and not self._is_shut:
            self._listener = socket.create_server((HOST, self.port))
            self._listener.setblocking(False)
            # Not sock_accept: cancelled at the wrong moment, it loses a connection that it took.
            asyncio.get_running_loop().add_reader(self._listener, self._accept, self._listener)

    async def _refuse(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    async def _reset_all(self) -> None:
        for connection in list(self._connections):
            await _ended(connection)

    def _accept(self, listener: socket.socket) -> None:
        try:
            client, _ = listener.accept()
        except OSError:  # Gone before we came to it.
            return
        self.accepted += 1
        connection = asyncio.create_task(self._connect(client))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)
        # A task that is cancelled before it began never sees its socket.
        connection.add_done_callback(lambda _: client.close())

    async def _connect(self, client: socket.socket) -> None:
        """Carry one connection until both sides have ended it in order; reset it if one did not."""
        with socket.socket() as broker:
            try:
                for end in (client, broker):
                    end.setblocking(False)
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                loop = asyncio.get_running_loop()
                await loop.sock_connect(broker, (HOST, self.target_port))
                async with asyncio.TaskGroup() as ways:
                    for source, sink, way in (
                        (client, broker, Direction.TO_BROKER),
                        (broker, client, Direction.TO_CLIENT),
                    ):
                        held: _Held = asyncio.Queue(CHUNKS_IN_FLIGHT)
                        ways.create_task(_take(source, held))
                        ways.create_task(self._give(held, sink, self._links[way]))
            except (OSError, ExceptionGroup):
                _reset_at_close(client, broker)
            except asyncio.CancelledError:
                _reset_at_close(client, broker)
                raise

    async def _give(self, held: _Held, sink: socket.socket, link: _Link) -> None:
        """Send what was taken, when the link lets it through."""
        while True:
            taken_at, chunk = await held.get()
            if chunk is None:
                await self._until_due(link, taken_at)
                raise ConnectionResetError
            if not chunk:
                await self._until_due(link, taken_at)
                sink.shutdown(socket.SHUT_WR)
                return
            while chunk:
                await self._until_due(link, taken_at)
                size = self._admitted(link, len(chunk))
                if size == 0:  # Another connection is sending the last bytes before a cut.
                    await self._changed.wait()
                    continue
                await self._until_sent(link, size)
                await asyncio.get_running_loop().sock_sendall(sink, chunk[:size])
                chunk = chunk[size:]
                link.passed += size
                if link.bytes_until_cut == 0:
                    link.bytes_until_cut = None
                    for connection in self._connections:
                        connection.cancel()
                    raise ConnectionResetError  # Our own connection hears of the rest too late.

    def _admitted(self, link: _Link, waiting: int) -> int:
        """Return how many of the waiting bytes to send next, and count them against a cut."""
        size = waiting
        if link.bytes_per_s is not None:
            size = min(size, max(1, int(link.bytes_per_s / SLICES_PER_S)))
        if link.bytes_until_cut is not None:
            size = min(size, link.bytes_until_cut)
            link.bytes_until_cut -= size
        return size

    async def _until_due(self, link: _Link, taken_at: float) -> None:
        """Wait until the link is open, and has kept what was taken then for its latency."""
        while (wait_s := taken_at + link.latency_s - time.monotonic()) > 0 or link.stalled:
            await self._change_or(None if link.stalled else wait_s)

    async def _until_sent(self, link: _Link, size: int) -> None:
        """Wait as long as a limited link takes to send this, behind what it sends already."""
        if link.bytes_per_s is None:
            return
        sent_at = max(time.monotonic(), link.free_at) + size / link.bytes_per_s
        link.free_at = sent_at
        while (wait_s := sent_at - time.monotonic()) > 0 and link.free_at >= sent_at:
            await self._change_or(wait_s)

    def _wake(self) -> None:
        """Let all who wait for a link look at it again."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def _change_or(self, wait_s: float | None) -> None:
        """Return when a link has changed, or so much time is over."""
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._changed.wait()


async def _take(source: socket.socket, held: _Held) -> None:
    """Take all that comes; at its end an empty chunk, or None where it ended in disorder.

    Both are held like bytes: a black hole does not tell that a side has gone either.
    """
    chunk: bytes | None = b"?"
    while chunk:
        try:
            chunk = await asyncio.get_running_loop().sock_recv(source, CHUNK)
        except OSError:
            chunk = None
        await held.put((time.monotonic(), chunk))


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def _reset_at_close(*ends: socket.socket) -> None:
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)


def properties_behind(proxy: Proxy) -> dict[str, str]:
    """Return the properties of a broker that has a second listener, reached by this proxy only."""
    return {
        "listeners": f"PROXIED://{HOST}:{proxy.target_port}",
        "advertised.listeners": f"PROXIED://{proxy.address}",
        "listener.security.protocol.map": "PROXIED:PLAINTEXT",
    }
