"""Read every stream of this process: one epoll set, drained from gevent's hub.

In:  connections that were added, each with the Exchange that is on it, if any.
Out: bytes and stamps in the exchanges; `on_end(exchange)` when a response has ended or failed.
Not: events and JSON; nothing is parsed between a read and the next but what shows the end.

gevent's hub waits on the epoll descriptor itself and calls `drain`, which never switches: so it
may also be called between the steps of longer work (`drain_if_due`), which keeps reads prompt.

At high rates a trip through the hub per event would cost more than the read. So after a drain of
BUSY_READS or more, or so soon after the one before, the next is a gathering pause of 1 ms away.
The kernel stamps meanwhile.

How early may bytes have come that share a read with later ones? Not before the socket was last
seen empty. That is when the poll before began; or, where the process slept since, when it woke:
it would have woken for the first of them. It has slept for what was neither CPU time nor waiting
for a CPU (Linux tells that in /proc/self/schedstat). A pause longer than any sleep of ours can be
(STOPPED_NS; the tick wakes us) is no sleep: the process was stopped, and the poll before counts.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import select
import ssl
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

import gevent
import gevent.monkey
import httptools

from kvswarm.stream.connection import ANCILLARY_BYTES, READ_BYTES, Connection
from kvswarm.stream.exchange import NO_STAMP, UPPER, Exchange, Framing
from kvswarm.stream.sse import EVENT_END

TICK_S: Final = 0.1
STOPPED_NS: Final = 150_000_000
QUIET_NS: Final = 2_000_000
"""After a pause of this long the time of waking is looked up: it costs 4 us."""
DUE_NS: Final = 1_500_000
BUSY_READS: Final = 4
BUSY_NS: Final = 500_000
GATHER_S: Final = 0.001
READY_PER_DRAIN: Final = 4096
RESERVED_DESCRIPTORS: Final = 16384
TERMINAL_BYTES: Final = 4
LAST_CHUNK: Final = b"\r\n\r\n"
CLOCK_STEP_NS: Final = 500_000


class Poller(Protocol):
    """What the reactor needs of epoll."""

    def register(self, fd: int, eventmask: int) -> None:
        """Watch a descriptor for reading."""

    def unregister(self, fd: int) -> None:
        """Watch it no more."""

    def poll(self, timeout: float, maxevents: int) -> list[tuple[int, int]]:
        """Give the descriptors that are ready."""

    def fileno(self) -> int:
        """Give the descriptor to wait on."""

    def close(self) -> None:
        """Free the descriptor."""


class KqueuePoller:
    """A Poller where there is no epoll: macOS and the BSDs."""

    def __init__(self) -> None:
        self._select: Any = select
        self._queue: Any = gevent.monkey.get_original("select", "kqueue")()

    def register(self, fd: int, _eventmask: int) -> None:
        """Watch a descriptor for reading."""
        self._change(fd, self._select.KQ_EV_ADD)

    def unregister(self, fd: int) -> None:
        """Watch it no more."""
        self._change(fd, self._select.KQ_EV_DELETE)

    def _change(self, fd: int, flags: int) -> None:
        event = self._select.kevent(fd, self._select.KQ_FILTER_READ, flags)
        self._queue.control([event], 0, 0)

    def poll(self, timeout: float, maxevents: int) -> list[tuple[int, int]]:
        """Give the descriptors that are ready."""
        return [(event.ident, 1) for event in self._queue.control(None, maxevents, timeout)]

    def fileno(self) -> int:
        """Give the descriptor to wait on."""
        return int(self._queue.fileno())

    def close(self) -> None:
        """Free the descriptor."""
        self._queue.close()


def new_poller() -> Poller:
    """epoll or kqueue; gevent hides both from the patched `select`, for those who would block."""
    if sys.platform == "linux":
        poller: Poller = gevent.monkey.get_original("select", "epoll")()
        return poller
    return KqueuePoller()


def reserve_descriptors(fd: int) -> None:
    """Have the kernel make room for many open connections now, by means of any descriptor.

    A table of descriptors that must grow makes the opening of a socket wait 10 to 20 ms (at 64,
    128, 256, ...), where the process has threads: Linux lets all readers of the old one finish.
    """
    soft_limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError):
        os.close(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, min(soft_limit, RESERVED_DESCRIPTORS) - 1))


class WakeClock:
    """Tells how long the process ran or wanted to run since it was last asked."""

    def __init__(self) -> None:
        path = Path("/proc/self/schedstat")
        self._fd = os.open(path, os.O_RDONLY) if path.exists() else None
        self._last_ns = self._busy_ns()

    def _busy_ns(self) -> int | None:
        """CPU time and time spent waiting for a CPU; None where the system does not tell."""
        if self._fd is None:
            return None
        cpu, waited, _ = os.pread(self._fd, 128, 0).split()
        # schedstat's first figure lags by up to a tick of the scheduler; this one does not.
        return max(int(cpu), time.thread_time_ns()) + int(waited)

    def busy_ns(self) -> int | None:
        """Time run or waited to run since the call before."""
        now_ns = self._busy_ns()
        if now_ns is None or self._last_ns is None:
            return None
        since_ns = now_ns - self._last_ns
        self._last_ns = now_ns
        return since_ns

    def close(self) -> None:
        """Close the file of /proc."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


class Reactor:
    """Reads all connections of one process. A forked child needs a new one."""

    def __init__(self, on_end: Callable[[Exchange], None]) -> None:
        self._on_end = on_end
        self._poller = new_poller()
        reserve_descriptors(self._poller.fileno())
        self._connections: dict[int, Connection] = {}
        self._exchanges: dict[int, Exchange] = {}
        self._wake_clock = WakeClock()
        self._polled_ns = self._drained_ns = time.time_ns()
        self.on_tick: Callable[[list[Exchange]], None] | None = None
        self.on_bytes: Callable[[Exchange], None] | None = None
        """Called for exchanges with Framing.EAGER after each read."""
        self.on_idle_close: Callable[[Connection], None] | None = None
        loop = gevent.get_hub().loop
        self._watcher: Any = loop.io(self._poller.fileno(), 1)
        self._watcher.start(self._on_ready)
        self._gatherer: Any = loop.timer(GATHER_S, GATHER_S)
        self._ticker: Any = loop.timer(TICK_S, TICK_S)
        self._ticker.start(self._tick)

    def add(self, connection: Connection) -> None:
        """Read this connection from now on; without an exchange only its end is noticed."""
        self._connections[connection.fd] = connection
        self._poller.register(connection.fd, 1)

    def remove(self, connection: Connection) -> None:
        """Read it no more, and close it."""
        if self._connections.pop(connection.fd, None) is not None:
            self._exchanges.pop(connection.fd, None)
            self._poller.unregister(connection.fd)
        connection.close()

    def begin(self, exchange: Exchange) -> None:
        """What comes on its connection from now on belongs to this exchange."""
        self._exchanges[exchange.connection.fd] = exchange

    def close(self) -> None:
        """Stop reading; close every connection."""
        self._watcher.stop()
        self._ticker.stop()
        for connection in list(self._connections.values()):
            self.remove(connection)
        self._gatherer.stop()
        self._gatherer.close()
        self._watcher.close()
        self._ticker.close()
        self._poller.close()
        self._wake_clock.close()

    def drain_if_due(self) -> None:
        """Read what is there, if the last time is more than DUE_NS ago and nobody closed this."""
        if time.time_ns() - self._drained_ns > DUE_NS and self._connections:
            self.drain()

    def _on_ready(self) -> None:
        """The hub found something to read, perhaps after a sleep."""
        start_ns = time.time_ns()
        since_ns = start_ns - self._drained_ns
        if since_ns > QUIET_NS:
            self._polled_ns = self._awake_since(start_ns, self._polled_ns)
        if self.drain() >= BUSY_READS or since_ns < BUSY_NS:
            self._watcher.stop()
            # Not start(): libev would count from when a timer last fired, and fire at once.
            self._gatherer.again(self._on_gathered)

    def _on_gathered(self) -> None:
        """A gathering pause is over: read, and gather again while it is worth it."""
        if self.drain() < BUSY_READS:
            self._gatherer.stop()
            self._watcher.start(self._on_ready)

    def drain(self) -> int:
        """Read what is ready, once per socket; give the number of sockets."""
        time_ns = time.time_ns
        get = self._exchanges.get
        # Sockets that this poll does not name were empty when it began: what they bring came later.
        floor_ns = self._polled_ns
        self._polled_ns = time_ns()
        ready = self._poller.poll(0, READY_PER_DRAIN)
        for fd, _mask in ready:
            exchange = get(fd)
            if exchange is None:
                self._read_idle(fd)
                continue
            try:
                piece, ancillary, _, _ = exchange.recvmsg(READ_BYTES, ANCILLARY_BYTES)
            except BlockingIOError:
                continue
            except OSError as error:
                self.fail(exchange, "disconnected", str(error))
                continue
            read_ns = time_ns()
            if not piece:
                self._at_eof(exchange)
                continue
            if exchange.tls is not None:
                piece = self._decrypt(exchange, piece)
                if not piece:
                    continue
            exchange.pieces.append(piece)
            exchange.stamps.append(ancillary[0][2] if ancillary else NO_STAMP)
            exchange.reads.append(read_ns)
            size = len(piece)
            # Nearly every piece is one whole HTTP chunk with one event.
            if (
                exchange.framing
                or piece.find(EVENT_END) != size - TERMINAL_BYTES
                or not piece.startswith(exchange.heads[size])
            ):
                self._look(exchange, piece, floor_ns)
        self._drained_ns = time_ns()
        return len(ready)

    def _awake_since(self, start_ns: int, floor_ns: int) -> int:
        """Move the floor up to when the process woke, as the module's docstring tells."""
        busy_ns = self._wake_clock.busy_ns()
        if busy_ns is None or start_ns - floor_ns - busy_ns > STOPPED_NS:
            return floor_ns
        return max(floor_ns, start_ns - busy_ns)

    def _look(self, exchange: Exchange, piece: bytes, floor_ns: int) -> None:
        """Keep the floor of a piece of several events; see whether the response has ended."""
        place = len(exchange.pieces) - 1
        exchange.odd.append(place)
        if piece.find(EVENT_END, 0, -TERMINAL_BYTES) >= 0:
            exchange.floors[place] = floor_ns
        elif piece.startswith(UPPER[len(piece)]):
            exchange.heads = UPPER
        if piece.endswith(LAST_CHUNK) or exchange.framing or len(piece) < TERMINAL_BYTES:
            self._unframe(exchange)

    def _unframe(self, exchange: Exchange) -> None:
        """Un-frame what came; end the exchange where that shows the end."""
        if exchange.first_byte_ns is None:
            exchange.note_first_byte()
        try:
            exchange.feed()
        except httptools.HttpParserError as error:
            self.fail(exchange, "http_protocol", str(error))
            return
        http = exchange.http
        if http.complete:
            self._end(exchange)
            return
        if exchange.framing == Framing.HEAD and http.header_end:
            exchange.note_framing(eager=self.on_bytes is not None)
        if exchange.framing == Framing.EAGER and self.on_bytes is not None:
            self.on_bytes(exchange)

    @staticmethod
    def _decrypt(exchange: Exchange, piece: bytes) -> bytes:
        tls = exchange.tls
        try:
            return tls.decrypt(piece) if tls is not None else piece
        except ssl.SSLError:
            return b""  # a broken record: the connection ends, and the exchange with it

    def _at_eof(self, exchange: Exchange) -> None:
        try:
            exchange.feed()
        except httptools.HttpParserError as error:
            self.fail(exchange, "http_protocol", str(error))
            return
        if exchange.http.complete or exchange.framing == Framing.CLOSE:
            self._end(exchange)
            self.remove(exchange.connection)
        else:
            self.fail(exchange, "disconnected", "the connection ended before the response did")

    def _end(self, exchange: Exchange) -> None:
        exchange.ended_ns = exchange.last_stamp_ns()
        self._finish(exchange)

    def fail(self, exchange: Exchange, kind: str, detail: str) -> None:
        """End the exchange with an error and close its connection. Does nothing if it ended."""
        if exchange.ended_ns is not None:
            return
        exchange.ended_ns = time.time_ns()
        exchange.error_kind = kind
        exchange.error_detail = detail
        self._finish(exchange)
        self.remove(exchange.connection)

    def _finish(self, exchange: Exchange) -> None:
        self._exchanges.pop(exchange.connection.fd, None)
        self._on_end(exchange)

    def _read_idle(self, fd: int) -> None:
        """A connection without an exchange became readable: it ended, or says what nobody asked."""
        connection = self._connections.get(fd)
        if connection is None:
            return
        try:
            data = connection.sock.recv(READ_BYTES)
            if data and connection.tls is not None and not connection.tls.decrypt(data):
                return  # TLS's own talk, such as session tickets
        except BlockingIOError:
            return
        except (OSError, ssl.SSLError):
            pass
        self.remove(connection)
        if self.on_idle_close is not None:
            self.on_idle_close(connection)

    def _tick(self) -> None:
        if self.on_tick is not None and self._exchanges:
            self.on_tick(list(self._exchanges.values()))


def clock_offset_ns() -> int:
    """CLOCK_REALTIME minus CLOCK_MONOTONIC; the tightest of up to three readings."""
    best_ns, best_width_ns = 0, None
    for _ in range(3):
        before_ns = time.monotonic_ns()
        wall_ns = time.time_ns()
        width_ns = time.monotonic_ns() - before_ns
        if best_width_ns is None or width_ns < best_width_ns:
            best_ns, best_width_ns = wall_ns - before_ns - width_ns // 2, width_ns
        if width_ns < CLOCK_STEP_NS // 10:
            break
    return best_ns
