"""The one flat row per request: what `stream` makes, `swarm` ships, the run directory keeps.

Every request that was started has exactly one `Record`, failures and cancelled ones too.
Missing is None, never 0. Moments are integer nanoseconds of CLOCK_REALTIME.

The per-event sequences are packed (little-endian numpy arrays as bytes), because a list of
128 Python integers costs ten times as much to ship as the bytes do; the properties unpack them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

SCHEMA_VERSION: Final = 1

PHASES: Final = ("warmup", "measure", "cooldown")

ERROR_KINDS: Final = {
    "connect": "no connection: refused, reset or name not found",
    "connect_timeout": "no connection within timeouts.connect_s",
    "tls": "the TLS handshake or certificate check failed",
    "first_byte_timeout": "no byte of the response within timeouts.first_byte_s",
    "stall": "no byte for timeouts.between_bytes_s in mid-response",
    "total_timeout": "not ended within timeouts.total_s",
    "disconnected": "the connection was cut before the response ended",
    "http_protocol": "the response was not HTTP/1.1 as we can read it",
    "content_encoding": "the response was compressed although identity was asked for",
    "content_type": "status 200, but the body is no event stream",
    "malformed_event": "an event's data is not the JSON it must be",
    "server_error_event": "an error object in a stream that began with status 200",
    "no_done": "the stream ended without `data: [DONE]`",
    "no_finish_reason": "the stream ended without a finish_reason",
    "empty_output": "the stream ended well but held no token",
    "cancelled": "still in flight when the run was stopped",
    "internal": "a defect in kvswarm; the detail tells which",
}
"""Error kinds and what each means. `http_<status>` stands beside these for other statuses."""


class Record(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One request, from the wish to start it to its end.

    Fields are shipped by position: new ones go to the end, with a default.
    """

    index: int
    """Number of the request in the run, from 0; no two requests of a run share one."""
    worker: int
    phase: str
    scenario: str
    """Name of the profile, or of the part of a mixed one."""
    endpoint: str
    """`chat` or `completions`."""
    intended_ns: int
    """When the load pattern wanted the request to start (closed loop: the user became free)."""
    sent_ns: int | None = None
    """Just before the first request byte was handed to the kernel on an open connection."""
    first_byte_ns: int | None = None
    first_token_ns: int | None = None
    last_token_ns: int | None = None
    end_ns: int | None = None
    """When the response was read whole, or when the request was given up."""
    connect_us: int | None = None
    """Time to connect (DNS, TCP, TLS); None on a connection that was open already."""
    send_spread_us: int | None = None
    """How long after `sent_ns` the kernel had the request: the true moment lies between."""
    error_kind: str | None = None
    """None: ok. Else a key of ERROR_KINDS or `http_<status>`."""
    error_detail: str | None = None
    http_status: int | None = None
    retry_after_s: float | None = None
    finish_reason: str | None = None
    replica: str | None = None
    """Pod or replica, where a response header tells."""
    asked_input_tokens: int | None = None
    asked_output_tokens: int | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    reasoning_tokens: int | None = None
    cached_tokens: int | None = None
    events: int = 0
    """Token-bearing events."""
    first_event_tokens: int | None = None
    """Tokens in the first token-bearing event; None where the server does not tell."""
    packed_itl_us: bytes = b""
    packed_event_tokens: bytes = b""
    packed_read_lag_us: bytes = b""
    packed_late_index: bytes = b""
    packed_late_us: bytes = b""
    coalesced_events: int = 0
    """Token-bearing events whose own arrival is not known: later bytes shared their read."""
    clock: str = "kernel"
    """`kernel`: the kernel's receive stamps; `read`: the moments of our reads, where none are."""
    clock_step_us: int | None = None
    """Step of CLOCK_REALTIME against CLOCK_MONOTONIC during the request, where one was seen."""
    resent: int = 0
    """Times the request was sent again because a kept-alive connection proved closed."""
    output_valid: bool | None = None
    """Where the profile scores outputs: was this one valid?"""
    unstamped_reads: int = 0
    """Reads for which the kernel gave no stamp, so that the moment of the read stands in."""
    variant: str | None = None
    """What sets it apart from others of its scenario: constrained or control, the adapter, ..."""
    case: str | None = None
    """Which schema or tool it was about."""
    group: int | None = None
    """Requests of one group belong together: one with its control, or a conversation."""
    turn: int | None = None
    """Turn of a dialogue, from 0."""
    output_score: str | None = None
    """How the answer was judged, a key of `scoring.KINDS`; None where it was not checked."""
    output_detail: str | None = None
    """Where an answer goes wrong, and how."""
    trace_id: str | None = None
    """32 hex digits of the W3C traceparent that it carried, where it carried one."""

    @property
    def itl_us(self) -> NDArray[np.uint32]:
        """Gaps between consecutive token-bearing events, in us; shape (events - 1,)."""
        return np.frombuffer(self.packed_itl_us, dtype="<u4")

    @property
    def event_tokens(self) -> NDArray[np.uint16]:
        """Tokens per token-bearing event, shape (events,); empty where the server does not tell."""
        return np.frombuffer(self.packed_event_tokens, dtype="<u2")

    @property
    def read_lag_us(self) -> NDArray[np.uint32]:
        """How late we read each token-bearing event after the kernel had it; shape (events,)."""
        return np.frombuffer(self.packed_read_lag_us, dtype="<u4")

    @property
    def late_index(self) -> NDArray[np.uint32]:
        """Which token-bearing events (from 0) have an uncertain arrival; goes with `late_us`."""
        return np.frombuffer(self.packed_late_index, dtype="<u4")

    @property
    def late_us(self) -> NDArray[np.uint32]:
        """By how much those events may have arrived earlier than their stamp, in us, at most."""
        return np.frombuffer(self.packed_late_us, dtype="<u4")

    @property
    def ok(self) -> bool:
        """True where the request succeeded; only such requests enter latencies."""
        return self.error_kind is None

    @property
    def ttft_ms(self) -> float | None:
        """First token after sent, in ms; None where either is missing."""
        if self.first_token_ns is None or self.sent_ns is None:
            return None
        return (self.first_token_ns - self.sent_ns) / 1e6

    @property
    def ttft_from_intended_ms(self) -> float | None:
        """First token after the intended start, in ms: corrected for coordinated omission."""
        if self.first_token_ns is None:
            return None
        return (self.first_token_ns - self.intended_ns) / 1e6

    @property
    def e2e_ms(self) -> float | None:
        """End after sent, in ms."""
        if self.sent_ns is None or self.end_ns is None:
            return None
        return (self.end_ns - self.sent_ns) / 1e6

    @property
    def tpot_ms(self) -> float | None:
        """(last token - first token) / (output tokens - tokens in the first event), in ms.

        Where the server told the tokens of each event, those after the last one are left out too:
        of a call's closing tags the client sees nothing, so they took none of that time.
        None without the server's usage, or where no token came after the first event.
        """
        if self.first_token_ns is None or self.last_token_ns is None:
            return None
        if self.completion_tokens is None:
            return None
        if self.packed_event_tokens:
            later_tokens = int(self.event_tokens[1:].sum())
        elif self.first_event_tokens == 1 and self.events > 1:
            later_tokens = self.events - 1  # told, and not packed: each event had one token
        else:
            later_tokens = self.completion_tokens - (self.first_event_tokens or 1)
        if later_tokens <= 0:
            return None
        return (self.last_token_ns - self.first_token_ns) / 1e6 / later_tokens


def pack_u32(values: Sequence[int] | NDArray[np.integer]) -> bytes:
    """Pack non-negative integers for a Record; values above 2**32 - 1 are held at that limit."""
    return np.minimum(np.asarray(values, dtype=np.int64), 0xFFFFFFFF).astype("<u4").tobytes()


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Record])


def encode_batch(records: Iterable[Record]) -> bytes:
    """Encode records for shipping from a worker and for the journal."""
    return _encoder.encode(list(records))


def decode_batch(blob: bytes) -> list[Record]:
    """Decode what `encode_batch` made; raises msgspec.DecodeError on anything else."""
    return _decoder.decode(blob)
