"""One request and what came back: bytes as they were read, with their stamps.

The reactor appends to `pieces`, `stamps` and `reads` (same length) and does nothing else on the
way; `feed` un-frames HTTP when an end is possible; `take` hands over what was fed, for decoding.

In:  reads of the reactor.
Out: `Reads`: parts of the body, and for each read its kernel stamp, its own time, and how much of
     the body had arrived with it.
Not: events and JSON (`sse.py`, `deltas.py`), sockets (`reactor.py`, `connection.py`).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final

import httptools
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from kvswarm.stream.connection import Connection
    from kvswarm.stream.deltas import Meaning

HTTP_OK: Final = 200
NO_STAMP: Final = bytes(16)
"""Stands where the kernel gave no stamp: `timespec` of 1970."""
TIMESPEC: Final = struct.Struct("<qq")
FIRST_FINAL_STATUS: Final = 200


class Framing(IntEnum):
    """How the end of a response shows. CHUNKED is 0: the hot path tests for anything else."""

    CHUNKED = 0
    HEAD = 1
    """The headers are not whole yet."""
    LENGTH = 2
    CLOSE = 3
    EAGER = 4
    """Chunked, and somebody wants to hear of the first token as soon as it is there."""


class ResponseParser:
    """llhttp's callbacks for one response: status, headers, parts of the body, the end."""

    __slots__ = ("complete", "header_end", "headers", "keep_alive", "on_body", "parser", "parts")

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.on_body: Callable[[bytes], None] = self.parts.append
        self.headers: dict[str, str] = {}
        self.complete = False
        self.keep_alive = False
        self.header_end = False
        self.parser: Any = httptools.HttpResponseParser(self)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header, by its lower-case name."""
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Note that status and headers are whole."""
        self.header_end = True

    def on_message_complete(self) -> None:
        """Note the end; an interim response (1xx) is none."""
        if self.parser.get_status_code() < FIRST_FINAL_STATUS:
            self.headers.clear()
            self.header_end = False
        else:
            self.complete = True
            # Asked now, because after the message the parser says no.
            self.keep_alive = self.parser.should_keep_alive()


@dataclass(frozen=True, slots=True)
class Reads:
    """What a number of reads brought. All arrays have one element per read."""

    body: bytes
    body_ends: NDArray[np.int64]
    """Length of `body` that had arrived with each read."""
    stamps_ns: NDArray[np.int64]
    """Kernel receive stamp, or the read's own time where there was none."""
    reads_ns: NDArray[np.int64]
    floors_ns: NDArray[np.int64]
    """The bytes of each read came after this moment, at the earliest."""
    unstamped: int


class Exchange:
    """A request in flight, or ended. Owned by the client; the reactor writes only the reads."""

    __slots__ = (
        "clock_offset_ns", "clock_step_us", "connect_us", "connection", "counts", "ended_ns",
        "error_detail", "error_kind", "first_byte_ns", "floors", "framing", "http", "last_read_ns",
        "last_stamp_taken_ns", "meaning", "pieces", "queued", "raw_body", "reads", "recvmsg",
        "resent", "reused", "seen_mono_ns", "seen_reads", "send_spread_us", "sent_mono_ns",
        "sent_ns", "stamps", "tls", "waiter",
    )  # fmt: skip

    def __init__(self, connection: Connection, meaning: Meaning) -> None:
        self.connection = connection
        self.recvmsg = connection.recvmsg
        self.tls = connection.tls
        self.meaning = meaning
        self.http = ResponseParser()
        self.framing: int = Framing.HEAD
        self.pieces: list[bytes] = []
        self.stamps: list[bytes] = []
        self.reads: list[int] = []
        self.floors: dict[int, int] = {}
        """Read (by its place in `reads`) -> moment at which the socket was still empty."""
        self.counts: list[int] = []
        """Parts of the body after each piece that `feed` has seen."""
        self.last_read_ns = 0
        self.last_stamp_taken_ns = 0
        self.first_byte_ns: int | None = None
        self.sent_ns: int | None = None
        self.sent_mono_ns = 0
        self.send_spread_us: int | None = None
        self.connect_us: int | None = None
        self.reused = False
        self.resent = 0
        self.ended_ns: int | None = None
        self.error_kind: str | None = None
        self.error_detail: str | None = None
        self.seen_reads = -1
        self.seen_mono_ns = 0
        self.raw_body = b""
        """Body of what is no event stream: an error's, say."""
        self.clock_offset_ns = 0
        self.clock_step_us: int | None = None
        self.queued = False
        self.waiter: Any = None

    @property
    def status(self) -> int | None:
        """HTTP status, once the headers are whole."""
        return int(self.http.parser.get_status_code()) if self.http.header_end else None

    def note_first_byte(self) -> None:
        """The first read has come: keep its stamp."""
        self.first_byte_ns = self.stamp_ns(0)

    def note_framing(self, *, eager: bool) -> None:
        """The headers are whole: from here on the end shows as they say."""
        headers = self.http.headers
        if "chunked" in headers.get("transfer-encoding", "").lower():
            self.framing = Framing.EAGER if eager else Framing.CHUNKED
        elif "content-length" in headers:
            self.framing = Framing.LENGTH
        else:
            self.framing = Framing.CLOSE

    def stamp_ns(self, place: int) -> int:
        """Stamp of a read that was not taken yet, by its place in `reads`."""
        stamp = self.stamps[place]
        if stamp == NO_STAMP:
            return self.reads[place]
        seconds, nanoseconds = TIMESPEC.unpack(stamp)
        return int(seconds) * 1_000_000_000 + int(nanoseconds)

    def last_stamp_ns(self) -> int:
        """Stamp of the newest read."""
        return self.stamp_ns(-1) if self.stamps else self.last_stamp_taken_ns

    @property
    def is_event_stream(self) -> bool:
        """Status 200 with the content type of an event stream, unencoded."""
        headers = self.http.headers
        return (
            self.status == HTTP_OK
            and headers.get("content-type", "").lower().startswith("text/event-stream")
            and headers.get("content-encoding", "identity") == "identity"
        )

    def feed(self) -> None:
        """Un-frame what was read; `http.complete` tells whether the response is whole.

        Raises httptools.HttpParserError for what is no HTTP/1.1 response.
        """
        feed = self.http.parser.feed_data
        parts, counts = self.http.parts, self.counts
        try:
            for piece in self.pieces[len(counts) :]:
                feed(piece)
                counts.append(len(parts))
        except BaseException:
            # Bytes that broke the framing still were read: their reads keep their stamps.
            counts.extend([len(parts)] * (len(self.pieces) - len(counts)))
            raise

    def take(self) -> Reads | None:
        """Hand over what was read and fed since the last call; None where that is nothing."""
        taken = len(self.counts)
        if not taken:
            return None
        reads_ns = np.array(self.reads[:taken], dtype=np.int64)
        timespecs = np.frombuffer(b"".join(self.stamps[:taken]), dtype="<i8").reshape(-1, 2)
        stamps_ns = timespecs[:, 0] * 1_000_000_000 + timespecs[:, 1]
        missing = stamps_ns == 0
        unstamped = int(missing.sum())
        if unstamped:
            stamps_ns = np.where(missing, reads_ns, stamps_ns)
        parts = self.http.parts
        ends = np.zeros(len(parts) + 1, dtype=np.int64)
        np.cumsum(np.fromiter(map(len, parts), dtype=np.int64, count=len(parts)), out=ends[1:])
        # Without a better bound, bytes came after the read before theirs.
        floors_ns = np.empty(taken, dtype=np.int64)
        floors_ns[0] = self.last_read_ns or self.sent_ns or stamps_ns[0]
        floors_ns[1:] = reads_ns[:-1]
        for place, floor_ns in self.floors.items():
            if place < taken:
                floors_ns[place] = max(floor_ns, int(floors_ns[place]))
        result = Reads(
            b"".join(parts), ends[self.counts], stamps_ns, reads_ns, floors_ns, unstamped
        )
        self.last_read_ns = int(reads_ns[-1])
        self.last_stamp_taken_ns = int(stamps_ns[-1])
        self.floors = {
            place - taken: floor for place, floor in self.floors.items() if place >= taken
        }
        for log in (self.pieces, self.stamps, self.reads):
            del log[:taken]
        parts.clear()
        self.counts.clear()
        return result
