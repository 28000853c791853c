"""One streamed response on its way, with the faults it may have, and the log of what was sent."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from kvswarm.simulator.engine import Sequence
from kvswarm.simulator.wire import Chunks, Request, encode, framed

FLUSH_S: Final = 0.5
FAULTS_OF_ANY_ANSWER: Final = frozenset({"cut", "stall"})
"""The others need a stream, but for the statuses, which need no answer at all."""
TOKENS_BEFORE_FAULT: Final = 3
MALFORMED: Final = b'data: {"choices": [{"delta": {"conte\n\n'
ERROR_EVENT: Final = (
    b'data: {"error": {"message": "simulated failure", "type": "InternalServerError", '
    b'"code": 500}}\n\n'
)


@dataclass(eq=False)
class Response:
    """A response in flight. `done` is set when its last byte was written, or its client left."""

    request: Request
    chunks: Chunks
    transport: Any
    fault: str | None
    request_id: str | None
    read_ns: int
    token_ns: list[int] = field(default_factory=list)
    """When each token had been handed to the kernel."""
    gone: bool = False
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        if not self.request.stream and self.fault not in FAULTS_OF_ANY_ANSWER:
            self.fault = None

    @property
    def first_token_ns(self) -> int | None:
        """When the first token had been handed to the kernel."""
        return self.token_ns[0] if self.token_ns else None

    @property
    def last_token_ns(self) -> int | None:
        """When the latest token had been handed to the kernel."""
        return self.token_ns[-1] if self.token_ns else None

    def put_token(self) -> bool:
        """Write the next token; False where the stream is over by a fault or a lost client."""
        if self.transport.is_closing():
            return self.leave()
        chunks = self.chunks
        if self.fault is not None and self._fails():
            return False
        if not self.request.stream:
            chunks.token()
        elif chunks.tokens:
            self._put(framed(chunks.token()))
        else:
            role = chunks.role()
            self._put((framed(role) if role else b"") + framed(chunks.token()))
        self.token_ns.append(time.time_ns())
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
            reason = None if self.fault == "no_finish" else sequence.finish_reason
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
            self.fault = None
        elif self.fault == "error_event":
            self._put(framed(ERROR_EVENT) + framed(b"data: [DONE]\n\n"))
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
            "events": response.chunks.tokens,
            "finish": sequence.finish_reason,
            "itl_us": [round((b - a) / 1000) for a, b in pairwise(response.token_ns)],
        }
        self._file.write(encode(line) + b"\n")
        if time.monotonic() - self._flushed_s > FLUSH_S:
            self._flushed_s = time.monotonic()
            self._file.flush()

    def close(self) -> None:
        """Write what is left."""
        if self._file is not None:
            self._file.close()
