"""One request and what came back: bytes as they were read, with their stamps.

The reactor appends to `pieces`, `stamps` and `reads` (same length) and does nothing else on the
way but to note the `odd` pieces: those that are not by their looks one whole HTTP chunk with one
event. `feed` un-frames HTTP when an end is possible: the odd pieces through llhttp, while runs of
the others leave its state as it was and are skipped. `take` hands over what was fed, for decoding.

In:  reads of the reactor.
Out: `Reads`: what each read brought of the body, its kernel stamp and its own time.
Not: events and JSON (`sse.py`, `deltas.py`), sockets (`reactor.py`, `connection.py`).
"""

from __future__ import annotations

import struct
from array import array
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
LINE_END: Final = b"\r\n"


class ChunkHeads(dict[int, bytes]):
    """Size of one whole HTTP chunk -> the line it begins with; NEVER for impossible sizes."""

    NEVER: Final = b"\0"

    def __init__(self, digits: str) -> None:
        super().__init__()
        self._digits = digits

    def __missing__(self, size: int) -> bytes:
        head = self.NEVER
        for digits in range(1, 9):
            line = format(max(0, size - digits - 2 * len(LINE_END)), self._digits)
            if len(line) == digits and line != "0":
                head = line.encode() + LINE_END
        self[size] = head
        return head


LOWER: Final = ChunkHeads("x")
UPPER: Final = ChunkHeads("X")
"""Most servers write sizes in lower case; hyper, and so TGI, in upper case."""


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

    __slots__ = (
        "between_chunks", "complete", "header_end", "headers", "keep_alive", "on_body", "parser",
        "parts",
    )  # fmt: skip

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.on_body: Callable[[bytes], None] = self.parts.append
        self.headers: dict[str, str] = {}
        self.complete = False
        self.keep_alive = False
        self.header_end = False
        self.between_chunks = False
        self.parser: Any = httptools.HttpResponseParser(self)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header, by its lower-case name."""
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Note that status and headers are whole."""
        self.header_end = self.between_chunks = True

    def on_chunk_header(self) -> None:
        """Note that a chunk has begun."""
        self.between_chunks = False

    def on_chunk_complete(self) -> None:
        """Note that it has ended."""
        self.between_chunks = True

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
    """What a number of reads brought. The list and all arrays have one element per read."""

    bodies: list[bytes]
    """What each read brought of the body."""
    stamps_ns: NDArray[np.int64]
    """Kernel receive stamp, or the read's own time where there was none."""
    reads_ns: NDArray[np.int64]
    floors_ns: NDArray[np.int64]
    """The bytes of each read came after this moment, at the earliest."""
    unstamped: int


class Exchange:
    """A request in flight, or ended. Owned by the client; the reactor writes only the reads."""

    __slots__ = (
        "_at_chunk", "_fed", "_parts", "clock_offset_ns", "clock_step_us", "connect_us",
        "connection", "ended_ns", "error_detail", "error_kind", "first_byte_ns", "floors",
        "framing", "heads", "http", "last_read_ns", "last_stamp_taken_ns", "meaning", "odd",
        "pieces", "queued", "raw_body", "reads", "recvmsg", "resent", "reused", "seen_mono_ns",
        "seen_reads", "send_spread_us", "sent_mono_ns", "sent_ns", "stamps", "tls", "waiter",
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
        self.reads: array[int] = array("q")
        self.floors: dict[int, int] = {}
        """Read (by its place in `reads`) -> moment at which the socket was still empty."""
        self.heads = LOWER
        self.odd: list[int] = []
        """Places in `pieces` of those that are not one whole HTTP chunk by their looks."""
        self._fed = 0
        """Pieces that were un-framed or skipped."""
        self._parts: dict[int, bytes] = {}
        """Place of a piece that went through llhttp -> what it brought of the body."""
        self._at_chunk = False
        """Nothing of the next chunk has been fed: a whole one changes nothing for llhttp."""
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
        count = len(self.pieces)
        try:
            for place in self.odd:
                self._feed_until(place)
                self._feed_one(place)
            self._feed_until(count)
        except BaseException:
            # Bytes that broke the framing still were read: their reads keep their stamps.
            self._parts[self._fed] = b"".join(self.http.parts)
            self._parts.update(dict.fromkeys(range(self._fed + 1, count), b""))
            self.http.parts.clear()
            raise
        finally:
            self._fed = count
            self.odd.clear()

    def _feed_until(self, end: int) -> None:
        """Skip pieces that are one whole chunk each; feed them where a chunk is still open."""
        while self._fed < end and not self._at_chunk:
            self._feed_one(self._fed)
        self._fed = end

    def _feed_one(self, place: int) -> None:
        http, piece = self.http, self.pieces[place]
        http.parser.feed_data(piece)
        self._parts[place] = b"".join(http.parts)
        http.parts.clear()
        # A size may be cut in its middle, which no callback tells: hence the end of a line.
        self._at_chunk = http.between_chunks and piece.endswith(LINE_END)
        self._fed = place + 1

    def _bodies(self) -> list[bytes]:
        """What each piece that was fed or skipped brought of the body."""
        bodies: list[bytes] = []
        heads = self.heads
        for place, part in (*self._parts.items(), (self._fed, b"")):
            skipped = self.pieces[len(bodies) : place]
            sizes = {len(heads[size]) for size in set(map(len, skipped))}
            if len(sizes) == 1:
                begin, end = sizes.pop(), -len(LINE_END)
                bodies += [piece[begin:end] for piece in skipped]
            else:
                bodies += [piece[len(heads[len(piece)]) : -len(LINE_END)] for piece in skipped]
            bodies.append(part)
        del bodies[self._fed :]
        return bodies

    def take(self) -> Reads | None:
        """Hand over what was read and fed since the last call; None where that is nothing."""
        taken = self._fed
        if not taken:
            return None
        reads_ns = np.array(self.reads[:taken])
        timespecs = np.frombuffer(b"".join(self.stamps[:taken]), dtype="<i8").reshape(-1, 2)
        stamps_ns = timespecs[:, 0] * 1_000_000_000 + timespecs[:, 1]
        missing = stamps_ns == 0
        unstamped = int(missing.sum())
        if unstamped:
            stamps_ns = np.where(missing, reads_ns, stamps_ns)
        # Without a better bound, bytes came after the read before theirs.
        floors_ns = np.empty(taken, dtype=np.int64)
        floors_ns[0] = self.last_read_ns or self.sent_ns or stamps_ns[0]
        floors_ns[1:] = reads_ns[:-1]
        for place, floor_ns in self.floors.items():
            if place < taken:
                floors_ns[place] = max(floor_ns, int(floors_ns[place]))
        result = Reads(self._bodies(), stamps_ns, reads_ns, floors_ns, unstamped)
        self.last_read_ns = int(reads_ns[-1])
        self.last_stamp_taken_ns = int(stamps_ns[-1])
        self.floors = {
            place - taken: floor for place, floor in self.floors.items() if place >= taken
        }
        self.odd = [place - taken for place in self.odd]
        del self.pieces[:taken], self.stamps[:taken], self.reads[:taken]
        self._parts.clear()
        self._fed = 0
        return result
