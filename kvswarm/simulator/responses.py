"""One streamed response on its way, with the faults it may have, and the log of what was sent."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from kvswarm.simulator.answers import Answer
from kvswarm.simulator.asked import Request
from kvswarm.simulator.engine import Sequence
from kvswarm.simulator.wire import KEEP_ALIVE, Chunks, encode, framed

FLUSH_S: Final = 0.5
FAULTS_OF_ANY_ANSWER: Final = frozenset({"cut", "stall"})
FAULTS_WITHIN: Final = frozenset({"error_event", "malformed", "empty"})
"""Planted when their place in the stream is reached."""
FAULTS_OF_A_STREAM: Final = frozenset(
    {"error_event", "malformed", "no_done", "no_finish", "empty", "content-type", "gzip"}
)
"""These spare an answer in one body."""
TOKENS_BEFORE_FAULT: Final = 3
MALFORMED: Final = b'data: {"choices": [{"delta": {"conte\n\n'


@dataclass(frozen=True, slots=True)
class Wire:
    """How streams are written, whatever they say."""

    stream_interval: int
    """Tokens in an event, but for the first."""
    keep_alive: bool


@dataclass(eq=False)
class Response:
    """A response in flight. `done` is set when its last byte was written, or its client left."""

    request: Request
    answer: Answer
    chunks: Chunks
    transport: Any
    wire: Wire
    fault: str | None
    """What is wrong with the stream; what is wrong with its content, the answer knows."""
    request_id: str | None
    read_ns: int
    admitted_ns: int | None = None
    """When the engine began with it."""
    event_ns: list[int] = field(default_factory=list)
    """When each event that bears tokens had been handed to the kernel."""
    made_ns: int | None = None
    """When the latest token was made; it may wait for others to share an event with."""
    waiting_tokens: int = 0
    planted: str | None = field(init=False)
    """The fault that the truth log tells of."""
    gone: bool = False
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        # Asked for each event, so looked up once.
        self._bundling = self.wire.stream_interval > 1
        self._keeping_alive = self.wire.keep_alive and self.request.stream
        possible = FAULTS_OF_ANY_ANSWER
        if self.request.stream:
            possible |= FAULTS_OF_A_STREAM
        if self.fault not in possible:
            self.fault = None
        self.chunks.tells_finish = self.fault != "no_finish"
        told = None if self.fault in FAULTS_WITHIN else self.fault
        self.planted = self.answer.fault or told

    @property
    def first_token_ns(self) -> int | None:
        """When the first token had been handed to the kernel."""
        return self.event_ns[0] if self.event_ns else None

    @property
    def last_token_ns(self) -> int | None:
        """When the latest token had been handed to the kernel."""
        return self.event_ns[-1] if self.event_ns else None

    def put_tokens(self, count: int, *, last: bool) -> bool:
        """Write the next tokens; False where the stream is over by a fault or a lost client."""
        if self.transport.is_closing():
            return self.leave()
        chunks = self.chunks
        if self.fault is not None and self._fails():
            return False
        if self._bundling:
            count += self.waiting_tokens
            self.waiting_tokens = 0
            if self.event_ns and not last and count < self.wire.stream_interval:
                self.waiting_tokens = count
                self.made_ns = time.time_ns()
                return True
        if not self.request.stream:
            chunks.take(count)
        elif chunks.tokens:
            self._put(framed(chunks.token(count)))
        else:
            role = chunks.role()
            self._put((framed(role) if role else b"") + framed(chunks.token(count)))
        self.made_ns = now_ns = time.time_ns()
        self.event_ns.append(now_ns)
        if self._keeping_alive:
            self._put(framed(KEEP_ALIVE))
        return True

    def _put(self, data: bytes) -> None:
        """Hand bytes to the kernel now: uvloop would only do so at the end of its round."""
        transport = self.transport
        if not transport.get_write_buffer_size():
            try:
                data = data[os.write(transport.get_extra_info("socket").fileno(), data) :]
            except BlockingIOError:
                pass
            except OSError:
                transport.abort()
                return
        if data:
            transport.write(data)

    def put_end(self, sequence: Sequence) -> None:
        """Write the end of the stream."""
        if self.request.stream and not self.transport.is_closing():
            reason = self.chunks.finish_reason(sequence.finish_reason)
            if not self.chunks.tells_finish:
                reason = None
            ending = self.chunks.end(reason, sequence.cached_tokens, done=self.fault != "no_done")
            for event in ending.split(b"\n\n")[:-1]:
                self._put(framed(event + b"\n\n"))
        self.done.set()

    def leave(self) -> bool:
        """End without an answer: the client is gone."""
        self.gone = self.gone or not self.done.is_set()
        self.done.set()
        return False

    def _fails(self) -> bool:
        """Play the fault, if it is time for it; True where no further token follows."""
        if self.fault == "empty":
            self.planted = self.fault
            self._put(framed(self.chunks.end("stop", 0)))
            self.done.set()
            return True
        if self.chunks.tokens < TOKENS_BEFORE_FAULT:
            return False
        if self.fault == "cut":
            self.transport.abort()
            return not self.leave()
        if self.fault == "stall":
            self.gone = True  # nothing more comes, and nothing ends it but the client
            return True
        if self.fault == "malformed":
            self._put(framed(MALFORMED))
            self.planted, self.fault = self.fault, None
        elif self.fault == "error_event":
            self.planted = self.fault
            self._put(framed(self.chunks.error_event) + framed(b"data: [DONE]\n\n"))
            self.done.set()
            return True
        return False


class TruthLog:
    """A JSON line per response: when it was read and when its tokens were written."""

    def __init__(self, path: Path | None) -> None:
        self._file = path.open("wb") if path is not None else None
        self._flushed_s = time.monotonic()

    def add(self, response: Response, sequence: Sequence) -> None:
        """Note a response that has ended. Moments are ns of CLOCK_REALTIME."""
        if self._file is None:
            return
        line = {
            "id": response.request_id,
            "read_ns": response.read_ns,
            "first_token_ns": response.first_token_ns,
            "last_token_ns": response.last_token_ns,
            "events": len(response.event_ns),
            "tokens": response.chunks.tokens,
            "finish": response.chunks.finish_reason(sequence.finish_reason),
            "kind": response.answer.kind,
            "fault": response.planted,
            "itl_us": [round((b - a) / 1000) for a, b in pairwise(response.event_ns)],
        }
        self._file.write(encode(line) + b"\n")
        if time.monotonic() - self._flushed_s > FLUSH_S:
            self._flushed_s = time.monotonic()
            self._file.flush()

    def close(self) -> None:
        """Write what is left."""
        if self._file is not None:
            self._file.close()
