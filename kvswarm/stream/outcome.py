"""Make the Record of an exchange that has ended and was decoded.

In:  `Ask` (what was wanted), `Exchange` (HTTP and sockets), its `Meaning` (the stream).
Out: `records.Record`, with the one error kind that fits best.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np

from kvswarm.records import Record, pack_u32
from kvswarm.stream.connection import HAS_KERNEL_STAMPS
from kvswarm.stream.deltas import DETAIL_CHARS, Meaning
from kvswarm.stream.exchange import Exchange

HTTP_OK: Final = 200
REPLICA_HEADERS: Final = ("x-kvswarm-replica", "x-pod-name", "x-gateway-destination-endpoint")
UNSENT: Final = frozenset({"connect", "connect_timeout", "tls"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What the load wanted of one request: the part of a Record that is known before it."""

    index: int
    worker: int
    phase: str
    scenario: str
    endpoint: str
    intended_ns: int
    asked_input_tokens: int | None = None
    asked_output_tokens: int | None = None
    variant: str | None = None
    case: str | None = None
    group: int | None = None
    turn: int | None = None
    trace_id: str | None = None


def unsent_record(ask: Ask, kind: str, detail: str, end_ns: int) -> Record:
    """Make the record of a request that never reached the wire."""
    return Record(
        **_ask_fields(ask), end_ns=end_ns, error_kind=kind, error_detail=detail[:DETAIL_CHARS]
    )


def record_of(ask: Ask, exchange: Exchange) -> Record:
    """Make the record of an exchange that has ended and was absorbed."""
    meaning = exchange.meaning
    kind, detail = error_of(exchange)
    stamps_ns, late_ns, lag_ns = meaning.arrivals()
    gaps_ns = np.diff(stamps_ns)
    late_index = np.flatnonzero(late_ns)
    tokens = meaning.event_tokens
    headers = exchange.http.headers
    return Record(
        **_ask_fields(ask),
        sent_ns=exchange.sent_ns,
        first_byte_ns=exchange.first_byte_ns,
        first_token_ns=int(stamps_ns[0]) if len(stamps_ns) else None,
        last_token_ns=int(stamps_ns[-1]) if len(stamps_ns) else None,
        end_ns=exchange.ended_ns or exchange.last_stamp_ns(),
        connect_us=exchange.connect_us,
        send_spread_us=exchange.send_spread_us,
        error_kind=kind,
        error_detail=detail[:DETAIL_CHARS] if detail else None,
        http_status=exchange.status,
        retry_after_s=_retry_after_s(headers.get("retry-after")),
        finish_reason=meaning.finish_reason,
        replica=next((headers[name] for name in REPLICA_HEADERS if name in headers), None),
        prompt_tokens=meaning.prompt_tokens,
        completion_tokens=meaning.completion_tokens,
        reasoning_tokens=meaning.reasoning_tokens,
        cached_tokens=meaning.cached_tokens,
        events=meaning.events,
        first_event_tokens=tokens[0] if tokens else None,
        # A step of the clock or a reordered stamp could give a gap below 0, which no gap is.
        packed_itl_us=pack_u32((np.maximum(gaps_ns, 0) + 500) // 1000),
        packed_event_tokens=_pack_tokens(tokens),
        packed_read_lag_us=pack_u32((lag_ns + 500) // 1000),
        packed_late_index=pack_u32(late_index),
        packed_late_us=pack_u32(-(-late_ns[late_index] // 1000)),
        coalesced_events=len(late_index),
        clock="kernel" if HAS_KERNEL_STAMPS else "read",
        clock_step_us=exchange.clock_step_us,
        resent=exchange.resent,
        unstamped_reads=meaning.unstamped,
    )


def _ask_fields(ask: Ask) -> dict[str, Any]:
    return {name: getattr(ask, name) for name in Ask.__slots__}


def _pack_tokens(tokens: list[int] | None) -> bytes:
    if not tokens or all(count == 1 for count in tokens):
        return b""
    packed: bytes = np.minimum(np.array(tokens), 0xFFFF).astype("<u2").tobytes()
    return packed


def error_of(  # noqa: PLR0911 - a list of cases, the first that holds
    exchange: Exchange,
) -> tuple[str | None, str | None]:
    """Give the one error kind of an ended exchange and its detail; None, None for success."""
    meaning = exchange.meaning
    if meaning.error_event is not None:
        return "server_error_event", meaning.error_event
    if meaning.malformed is not None:
        return "malformed_event", meaning.malformed
    if exchange.error_kind is not None:
        return exchange.error_kind, exchange.error_detail
    status = exchange.status
    if status != HTTP_OK:
        return f"http_{status}", _body_message(exchange) or "no message"
    headers = exchange.http.headers
    encoding = headers.get("content-encoding", "identity")
    if encoding != "identity":
        return "content_encoding", f"content-encoding: {encoding}"
    content_type = headers.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() != "text/event-stream":
        return "content_type", f"content-type: {content_type or 'none'}; {_body_message(exchange)}"
    return _stream_error(meaning)


def _stream_error(meaning: Meaning) -> tuple[str | None, str | None]:
    if not meaning.done:
        return "no_done", "the stream ended without data: [DONE]"
    if meaning.finish_reason is None:
        return "no_finish_reason", "no chunk had a finish_reason"
    if not meaning.events:
        return "empty_output", f"no token; finish_reason {meaning.finish_reason}"
    return None, None


def _body_message(exchange: Exchange) -> str:
    """The message of an error body, such as OpenAI's, or its beginning."""
    body = exchange.raw_body
    try:
        plain = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return re.sub(r"\s+", " ", body.decode("utf-8", "replace")).strip()
    if isinstance(plain, dict):
        inner = plain.get("error", plain)
        message = inner.get("message") if isinstance(inner, dict) else inner
        if isinstance(message, str):
            return message
    return body.decode("utf-8", "replace")


def _retry_after_s(value: str | None) -> float | None:
    """Seconds of a Retry-After header; None for none, and for dates (by the server's clock)."""
    try:
        return float(value) if value is not None else None
    except ValueError:
        return None
