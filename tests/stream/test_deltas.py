"""What chunks mean, on streams captured from real vLLM and on bent ones."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from kvswarm.stream.deltas import Meaning
from kvswarm.stream.exchange import Reads

FIXTURES = Path(__file__).parent.parent / "fixtures"


def reads_of(pieces: list[bytes], *, floors: list[int] | None = None) -> Reads:
    """Reads of these pieces, 1 ms apart."""
    count = len(pieces)
    stamps = np.arange(1, count + 1, dtype=np.int64) * 1_000_000
    return Reads(
        bodies=pieces,
        stamps_ns=stamps,
        reads_ns=stamps + 100_000,
        floors_ns=np.array(floors, dtype=np.int64) if floors else stamps - 500_000,
        unstamped=0,
    )


def understood(*pieces: bytes) -> Meaning:
    """The meaning of a body in these pieces."""
    meaning = Meaning()
    meaning.absorb(reads_of(list(pieces)))
    return meaning


def event(plain: object) -> bytes:
    """One event with this data."""
    return b"data: " + msgspec.json.encode(plain) + b"\n\n"


def chat(**delta: object) -> bytes:
    """A chat chunk with this delta."""
    return event({"choices": [{"index": 0, "delta": delta}]})


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("*.sse")), ids=lambda path: path.stem)
def test_a_captured_stream_of_vllm_ends_well_and_counts_as_its_usage_says(path: Path) -> None:
    """The fixtures are what vLLM 0.32 sent: usage is the truth about tokens."""
    body = path.read_bytes()
    meaning = understood(body)
    assert meaning.done
    assert meaning.finish_reason is not None
    assert meaning.error_event is None
    assert meaning.malformed is None
    assert meaning.events == body.count(b'"content":"') + body.count(b'"text":"') + body.count(
        b'"reasoning":"'
    ) + body.count(b'"tool_calls":[') - body.count(b'"content":""') - body.count(b'"text":""')
    if meaning.completion_tokens is not None:
        assert meaning.completion_tokens >= meaning.events > 0


def test_the_role_only_chunk_is_no_token() -> None:
    """Its arrival would make TTFT too short."""
    meaning = understood(chat(role="assistant", content=""), chat(content="a"))
    assert meaning.events == 1
    assert meaning.first_token_ns == 2_000_000


@pytest.mark.parametrize("field", ["content", "reasoning", "reasoning_content"])
def test_text_of_any_kind_bears_a_token(field: str) -> None:
    """Reasoning models think before they answer; that is output too."""
    assert understood(chat(**{field: "x"})).events == 1


def test_tool_call_fragments_bear_tokens_and_are_kept_in_order() -> None:
    """Arguments come in pieces that have to be put together later."""
    first = chat(tool_calls=[{"index": 0, "id": "c", "function": {"name": "f", "arguments": ""}}])
    second = chat(tool_calls=[{"index": 0, "function": {"arguments": '{"a"'}}])
    empty = chat(tool_calls=[{"index": 0, "function": {"arguments": ""}}])
    meaning = understood(first + second + empty)
    assert meaning.events == 2
    assert [call.function.arguments for call in meaning.tool_calls if call.function] == [
        "", '{"a"', ""
    ]  # fmt: skip


def test_tokens_of_a_chunk_without_text_count_for_the_next_with_text() -> None:
    """Half of a UTF-8 character gives an empty delta with a token id."""
    pieces = [
        event({"choices": [{"delta": {"content": text}, "token_ids": ids}]})
        for text, ids in (("a", [1]), ("", [2]), ("\u6c34", [3]), ("bc", [4, 5]))
    ]
    meaning = understood(*pieces)
    assert meaning.event_tokens == [1, 2, 2]


def test_usage_in_every_chunk_tells_tokens_per_event() -> None:
    """vLLM's continuous_usage_stats, where token ids are not asked for."""
    pieces = [
        event({"choices": [{"text": "x"}], "usage": {"completion_tokens": told}})
        for told in (1, 4, 5)
    ]
    assert understood(*pieces).event_tokens == [1, 3, 1]


@pytest.mark.parametrize(
    "data",
    [
        {"error": {"message": "boom", "code": 500}},
        {"error": "boom", "error_type": "generation"},
        {"object": "error", "message": "boom", "code": 500},
    ],
)
def test_an_error_object_in_the_stream_is_found_in_each_servers_form(data: object) -> None:
    """OpenAI's, TGI's and older vLLM's; `[DONE]` after it is no success."""
    meaning = understood(chat(content="a"), event(data), b"data: [DONE]\n\n")
    assert meaning.error_event is not None
    assert "boom" in meaning.error_event


def test_an_empty_finish_reason_is_none() -> None:
    """Some gateways send one in every chunk; taken for the real one it would hide that."""
    pieces = [
        event({"choices": [{"delta": {"content": "a"}, "finish_reason": reason}]})
        for reason in ("", "", "length")
    ]
    assert understood(*pieces[:2]).finish_reason is None
    assert understood(*pieces).finish_reason == "length"


@pytest.mark.parametrize("bad", [b"{", b"{},{}", b"", b"nonsense", b'{"choices": 3}', b"\xff"])
def test_a_malformed_event_is_found_and_the_others_count(bad: bytes) -> None:
    """Also one that is well-formed only when joined with its neighbours."""
    body = chat(content="a") + b"data: " + bad + b"\n\n" + chat(content="b") + b"data: [DONE]\n\n"
    meaning = understood(body)
    assert meaning.malformed is not None
    assert meaning.events == 2
    assert meaning.done


def test_an_event_that_shared_its_read_with_later_bytes_is_uncertain() -> None:
    """Only the time of the last byte of a read is known."""
    meaning = Meaning()
    pieces = [chat(content="a"), chat(content="b") + chat(content="c"), b"data: [DONE]\n\n"]
    meaning.absorb(reads_of(pieces, floors=[1, 1_400_000, 1]))
    stamps, late, lag = meaning.arrivals()
    assert stamps.tolist() == [1_000_000, 2_000_000, 2_000_000]
    assert late.tolist() == [0, 600_000, 0]
    assert lag.tolist() == [100_000] * 3


def test_absorbing_in_pieces_gives_what_absorbing_at_once_gives() -> None:
    """Streams in flight are decoded on the way."""
    body = (FIXTURES / "chat_stream_continuous.sse").read_bytes()
    whole = understood(body)
    parts = Meaning()
    for start in range(0, len(body), 97):
        parts.absorb(reads_of([body[start : start + 97]]))
    assert parts.events == whole.events
    assert "".join(parts.text) == "".join(whole.text)
    assert parts.finish_reason == whole.finish_reason
    assert parts.event_tokens == whole.event_tokens
    assert parts.arrivals().shape == (3, whole.events)


def test_chunks_with_an_empty_reasoning_are_known_after_the_first_ones() -> None:
    """trtllm-serve has one in every chunk; decoding each in full costs several times as much."""
    pieces = [chat(content=f"t{place}", reasoning_content="") for place in range(40)]
    meaning = understood(*pieces)
    assert "".join(meaning.text) == "".join(f"t{place}" for place in range(40))
    assert meaning._event_pattern is not None
    mixed = understood(*pieces, chat(content="", reasoning_content="because"))
    assert mixed.events == 41
    assert mixed.reasoning_text == ["because"]
