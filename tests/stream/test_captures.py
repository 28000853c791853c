"""Streams captured from real vLLM, cut and interspersed as networks and proxies do.

What they mean is worked out again here by the plainest means: every event decoded by itself.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvswarm.stream.deltas import Meaning
from kvswarm.stream.exchange import Reads

CAPTURES = {
    path.stem: path for path in sorted((Path(__file__).parents[1] / "fixtures").glob("*.sse"))
}


@dataclass
class Truth:
    """What a stream means, event by event."""

    bearing: int = 0
    tokens: list[int] = field(default_factory=list)
    """Tokens of each event that bears some, by usage or token_ids where every chunk tells."""
    text: str = ""
    reasoning: str = ""
    arguments: str = ""
    usage: dict[str, Any] = field(default_factory=dict)


def truth_of(body: bytes) -> Truth:
    """Decode every event by itself."""
    truth, counted, pending = Truth(), 0, 0
    for line in body.decode().split("\n\n"):
        data = line.removeprefix("data: ")
        if data in {"", "[DONE]"}:
            continue
        chunk = json.loads(data)
        if usage := chunk.get("usage"):
            truth.usage = usage
        for choice in chunk["choices"]:
            delta = choice.get("delta", {})
            said = choice.get("text") or delta.get("content") or ""
            thought = delta.get("reasoning") or ""
            calls = [call["function"] for call in delta.get("tool_calls") or []]
            truth.text += said
            truth.reasoning += thought
            truth.arguments += "".join(call.get("arguments") or "" for call in calls)
            if chunk.get("usage"):
                pending += usage["completion_tokens"] - counted
                counted = usage["completion_tokens"]
            if said or thought or any(c.get("name") or c.get("arguments") for c in calls):
                truth.bearing += 1
                truth.tokens.append(pending)
                pending = 0
    return truth


def understood(pieces: list[bytes]) -> Meaning:
    """Absorb pieces as reads 1 ms apart."""
    meaning = Meaning()
    stamps = np.arange(1, len(pieces) + 1, dtype=np.int64) * 1_000_000
    meaning.absorb(
        Reads(bodies=pieces, stamps_ns=stamps, reads_ns=stamps, floors_ns=stamps, unstamped=0)
    )
    return meaning


def check(meaning: Meaning, truth: Truth) -> None:
    """Both say the same."""
    assert meaning.done
    assert meaning.malformed is None
    assert meaning.events == truth.bearing
    assert "".join(meaning.text) == truth.text
    assert "".join(meaning.reasoning_text) == truth.reasoning
    pieces = [call.function.arguments or "" for call in meaning.tool_calls if call.function]
    assert "".join(pieces) == truth.arguments
    if truth.usage:
        assert meaning.completion_tokens == truth.usage["completion_tokens"]
        assert meaning.prompt_tokens == truth.usage["prompt_tokens"]
    if truth.tokens and all(truth.tokens):
        assert meaning.event_tokens == truth.tokens
        assert sum(truth.tokens) == meaning.completion_tokens


@pytest.mark.parametrize("name", CAPTURES)
@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_a_capture_means_the_same_wherever_it_is_cut(name: str, data: st.DataObject) -> None:
    """TCP and proxies cut anywhere, and join anything."""
    body = CAPTURES[name].read_bytes()
    cuts = sorted(data.draw(st.sets(st.integers(1, len(body) - 1), max_size=40)))
    pieces = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    check(understood(pieces), truth_of(body))


@pytest.mark.parametrize("name", CAPTURES)
@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_comments_between_the_events_change_nothing(name: str, data: st.DataObject) -> None:
    """`: keep-alive` lines come while the server has nothing to say; they are no tokens."""
    body = CAPTURES[name].read_bytes()
    events = [event + b"\n\n" for event in body.split(b"\n\n")[:-1]]
    kept: list[bytes] = []
    for event in events:
        kept += [b": keep-alive\n\n"] * data.draw(st.integers(0, 2))
        kept.append(event)
    check(understood(kept), truth_of(body))


def test_the_captures_show_what_they_are_for() -> None:
    """Otherwise the tests above would hold for nothing."""
    truths = {name: truth_of(path.read_bytes()) for name, path in CAPTURES.items()}
    assert truths["chat_stream_reasoning"].reasoning
    assert not truths["chat_stream_reasoning"].text
    assert max(truths["completions_stream_interval_usage"].tokens) == 4
    assert min(truths["chat_stream_continuous"].tokens) >= 1
    assert truths["chat_stream_tool_required_strict"].arguments
    assert (
        truths["chat_stream_ngram"].usage["completion_tokens"] > truths["chat_stream_ngram"].bearing
    )
