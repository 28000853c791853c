"""Perform requests: a connection from the pool, send, wait in the reactor, decode afterwards.

In:  `Ask` and the bytes of a request.
Out: `on_record(record, exchange)` exactly once for every request, whatever happened to it.
Not: Locust, profiles, quotas: see `kvswarm.swarm`.

`perform` gives back as soon as the response has ended; its meaning is decoded by one greenlet, in
slices, with reads in between. A stream in flight is decoded on the way too, so that the work at
the ends of many streams does not pile up.
"""

from __future__ import annotations

import collections
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import gevent
import gevent.event
import gevent.hub
import httptools

from kvswarm.records import Record
from kvswarm.stream.connection import ConnectError, Connection, Connector
from kvswarm.stream.deltas import Meaning
from kvswarm.stream.exchange import Exchange, Framing
from kvswarm.stream.outcome import Ask, error_of, record_of, unsent_record
from kvswarm.stream.reactor import CLOCK_STEP_NS, Reactor, clock_offset_ns
from kvswarm.stream.target import Target

ABSORB_READS: Final = 160
"""Reads that a stream in flight gathers before it is decoded on the way."""
SLICE_NS: Final = 500_000
BACKLOG_LIMIT: Final = 4096
"""Ended exchanges waiting to be decoded; above, `perform` waits: memory stays bounded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """Seconds that each part of a request may take."""

    connect_s: float = 10.0
    first_byte_s: float = 300.0
    between_bytes_s: float = 60.0
    total_s: float = 1800.0


class StreamClient:
    """All requests of one process to one target."""

    def __init__(
        self,
        target: Target,
        deadlines: Deadlines,
        on_record: Callable[[Record, Exchange | None], None],
    ) -> None:
        self.in_flight = 0
        self._stopped = False
        self._closed = False
        self.token_events = 0
        self._deadlines = deadlines
        self._on_record = on_record
        self._connector = Connector(target)
        self._idle: list[Connection] = []
        self._on_sent: Callable[[Ask, int], None] | None = None
        self._on_first_token: Callable[[Ask, int], None] | None = None
        self._reactor = Reactor(self._on_end)
        self._reactor.on_tick = self._tick
        self._reactor.on_idle_close = self._forget_idle
        self._queue: collections.deque[tuple[Exchange, Ask | None]] = collections.deque()
        self._asks: dict[Exchange, Ask] = {}
        self._work = gevent.event.Event()
        self._room = gevent.event.Event()
        self._room.set()
        self._decoder: Any = gevent.spawn(self._decode_forever)

    def listen_sent(self, listener: Callable[[Ask, int], None]) -> None:
        """Call `listener(ask, sent_ns)` when a request was handed to the kernel."""
        self._on_sent = listener

    def listen_first_token(self, listener: Callable[[Ask, int], None]) -> None:
        """Call `listener(ask, first_token_ns)` at first tokens; costs early decoding."""
        self._on_first_token = listener
        self._reactor.on_bytes = self._queue_exchange

    def perform(self, ask: Ask, request: bytes) -> Exchange | None:
        """Send one request and wait for the end of its response; None: no connection.

        Every way out of here, exceptions of a killed greenlet included, leaves one record.
        """
        self.in_flight += 1
        try:
            return self._exchange(ask, request)
        finally:
            self.in_flight -= 1

    def _exchange(self, ask: Ask, request: bytes) -> Exchange | None:
        resent = 0
        while True:
            try:
                self._room.wait()
                self._reactor.drain_if_due()
                connection, connect_us = self._connection()
            except ConnectError as error:
                self._record_unsent(ask, error.kind, str(error))
                return None
            except BaseException:
                self._record_unsent(ask, "cancelled", "stopped before it was sent")
                raise
            exchange = Exchange(connection, Meaning())
            exchange.connect_us = connect_us
            exchange.reused = connect_us is None
            exchange.resent = resent
            self._asks[exchange] = ask
            try:
                self._send(exchange, request)
                if self._on_sent is not None and exchange.sent_ns is not None and not resent:
                    self._on_sent(ask, exchange.sent_ns)
                if exchange.ended_ns is None:
                    exchange.waiter = gevent.hub.Waiter()
                    exchange.waiter.get()
            except OSError as error:
                self._reactor.fail(exchange, "disconnected", f"while sending: {error}")
            except BaseException:
                exchange.waiter = None
                self._reactor.fail(exchange, "cancelled", "in flight when the run was stopped")
                self._settle(exchange)
                raise
            if not _proved_stale(exchange):
                self._settle(exchange)
                return exchange
            self._asks.pop(exchange)
            resent += 1

    def _connection(self) -> tuple[Connection, int | None]:
        """An idle connection and None, or a new one and the us it took. Raises ConnectError."""
        connection, connect_us = self._idle_or_new()
        if self._stopped:
            self._reactor.remove(connection)
            raise ConnectError("cancelled", "stopped before it was sent")
        return connection, connect_us

    def _idle_or_new(self) -> tuple[Connection, int | None]:
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed:
                return connection, None
        start_ns = time.monotonic_ns()
        connection = self._connector.open(self._deadlines.connect_s)
        connect_us = (time.monotonic_ns() - start_ns) // 1000
        self._reactor.add(connection)
        # Hundreds of connections may be ready in one turn of the hub, and tokens come meanwhile.
        self._reactor.drain_if_due()
        return connection, connect_us

    def _send(self, exchange: Exchange, request: bytes) -> None:
        connection = exchange.connection
        connection.requests += 1
        data = connection.tls.encrypt(request) if connection.tls is not None else request
        self._reactor.begin(exchange)
        exchange.clock_offset_ns = clock_offset_ns()
        exchange.sent_mono_ns = exchange.seen_mono_ns = time.monotonic_ns()
        exchange.sent_ns = time.time_ns()
        connection.send_all(data, self._deadlines.first_byte_s)
        exchange.send_spread_us = (time.time_ns() - exchange.sent_ns) // 1000

    def _on_end(self, exchange: Exchange) -> None:
        """The reactor says that a response ended: wake its greenlet. Runs within a drain."""
        step_ns = clock_offset_ns() - exchange.clock_offset_ns
        if abs(step_ns) > CLOCK_STEP_NS:
            exchange.clock_step_us = step_ns // 1000
        if exchange.waiter is not None:
            gevent.get_hub().loop.run_callback(exchange.waiter.switch, None)
            exchange.waiter = None

    def _settle(self, exchange: Exchange) -> None:
        """Give the connection back, and the exchange to the decoder."""
        connection = exchange.connection
        reusable = (
            not connection.closed
            and exchange.error_kind is None
            and exchange.http.complete
            and exchange.http.keep_alive
        )
        if reusable:
            self._idle.append(connection)
        else:
            self._reactor.remove(connection)
        ask = self._asks.pop(exchange)
        self._queue.append((exchange, ask))
        if len(self._queue) > BACKLOG_LIMIT:
            self._room.clear()
        self._work.set()

    def _forget_idle(self, connection: Connection) -> None:
        if connection in self._idle:
            self._idle.remove(connection)

    def _record_unsent(self, ask: Ask, kind: str, detail: str) -> None:
        self._on_record(unsent_record(ask, kind, detail, time.time_ns()), None)

    def _tick(self, exchanges: list[Exchange]) -> None:
        """Look for passed deadlines, and for streams to decode on the way. Within the hub."""
        now_ns = time.monotonic_ns()
        limits = self._deadlines
        for exchange in exchanges:
            count = len(exchange.reads)
            if exchange.sent_mono_ns == 0:
                continue
            if count != exchange.seen_reads:
                exchange.seen_reads = count
                exchange.seen_mono_ns = now_ns
                if count > ABSORB_READS:
                    self._queue_exchange(exchange)
            quiet_s = (now_ns - exchange.seen_mono_ns) / 1e9
            if now_ns - exchange.sent_mono_ns > limits.total_s * 1e9:
                self._reactor.fail(exchange, "total_timeout", f"after {limits.total_s:g} s")
            elif exchange.first_byte_ns is None:
                if now_ns - exchange.sent_mono_ns > limits.first_byte_s * 1e9:
                    detail = f"no byte within {limits.first_byte_s:g} s"
                    self._reactor.fail(exchange, "first_byte_timeout", detail)
            elif quiet_s > limits.between_bytes_s:
                self._reactor.fail(exchange, "stall", f"no byte for {limits.between_bytes_s:g} s")

    def _queue_exchange(self, exchange: Exchange) -> None:
        if not exchange.queued:
            exchange.queued = True
            self._queue.append((exchange, None))
            self._work.set()

    def _decode_forever(self) -> None:
        while not self._closed:
            self._work.wait()
            slice_end_ns = time.monotonic_ns() + SLICE_NS
            while self._queue and time.monotonic_ns() < slice_end_ns:
                self._decode(*self._queue.popleft())
            if len(self._queue) <= BACKLOG_LIMIT // 2:
                self._room.set()
            if not self._queue:
                self._work.clear()
            self._reactor.drain_if_due()
            gevent.sleep(0)

    def _decode(self, exchange: Exchange, ask: Ask | None) -> None:
        exchange.queued = False
        had_token = exchange.meaning.first_token_ns is not None
        try:
            absorb(exchange)
            if self._on_first_token is not None and not had_token:
                self._tell_first_token(exchange, ask)
            if ask is not None:
                record = record_of(ask, exchange)
                self.token_events += record.events
        except Exception as error:  # noqa: BLE001 - a defect of ours must cost neither row nor run
            if ask is not None:
                self._record_unsent(ask, "internal", repr(error))
            return
        if ask is not None:
            self._on_record(record, exchange)

    def _tell_first_token(self, exchange: Exchange, ask: Ask | None) -> None:
        asked = ask or self._asks.get(exchange)
        first_token_ns = exchange.meaning.first_token_ns
        if first_token_ns is not None and asked is not None and self._on_first_token is not None:
            if exchange.framing == Framing.EAGER:
                exchange.framing = Framing.CHUNKED
            self._on_first_token(asked, first_token_ns)

    def breathe(self) -> None:
        """Read what has come, if it is time: to be called between the steps of longer work."""
        self._reactor.drain_if_due()

    def meaning_of(self, exchange: Exchange) -> Meaning | None:
        """What an ended exchange has said, now; None where the request failed."""
        absorb(exchange)
        kind, _ = error_of(exchange)
        return exchange.meaning if kind is None else None

    def cancel_all(self) -> None:
        """End every request in flight as `cancelled`; its greenlet wakes."""
        self._stopped = True
        for exchange in list(self._asks):
            self._reactor.fail(exchange, "cancelled", "in flight when the run was stopped")

    @property
    def streaming_events(self) -> int:
        """Events that streams in flight have brought, about: reads of one each, nearly always."""
        return sum(e.meaning.events + len(e.reads) for e in self._asks)

    @property
    def undecoded(self) -> int:
        """Exchanges that have ended, or went on, and wait for the decoder."""
        return len(self._queue)

    def decode_rest(self) -> None:
        """Decode all that waits for it, in this greenlet: the decoder may be the one that asks."""
        while self._queue:
            self._decode(*self._queue.popleft())

    def close(self) -> None:
        """Decode what is left, then close every connection."""
        self.decode_rest()
        self._closed = True
        if gevent.getcurrent() is not self._decoder:  # a listener that it calls may end the run
            self._decoder.kill()
        self._idle.clear()
        self._reactor.close()


def _proved_stale(exchange: Exchange) -> bool:
    """True where a kept-alive connection turned out closed before it answered: safe to resend."""
    return (
        exchange.reused and exchange.error_kind == "disconnected" and exchange.first_byte_ns is None
    )


def absorb(exchange: Exchange) -> None:
    """Decode what the exchange has read so far."""
    try:
        exchange.feed()
    except httptools.HttpParserError as error:
        exchange.error_kind = exchange.error_kind or "http_protocol"
        exchange.error_detail = exchange.error_detail or str(error)
    reads = exchange.take()
    if reads is None:
        return
    if exchange.is_event_stream:
        exchange.meaning.absorb(reads)
    else:
        exchange.raw_body = (exchange.raw_body + b"".join(reads.bodies))[:RAW_BODY_LIMIT_BYTES]


RAW_BODY_LIMIT_BYTES: Final = 65536
