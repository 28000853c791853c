"""Tool calls put together from the pieces that a stream brings."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kvswarm.stream.deltas import FunctionDelta, Meaning, ToolCallDelta
from kvswarm.stream.exchange import Reads
from kvswarm.workload.answers import ToolCall, tool_calls_of

FIXTURES = Path(__file__).parents[1] / "fixtures"


def meaning_of(body: bytes) -> Meaning:
    """What a whole body says, read at once."""
    meaning = Meaning()
    now = np.array([1], dtype=np.int64)
    meaning.absorb(Reads(bodies=[body], stamps_ns=now, reads_ns=now, floors_ns=now, unstamped=0))
    return meaning


def test_a_call_of_real_vllm_is_whole_again() -> None:
    """The captured stream brings the name first and the arguments in pieces."""
    meaning = meaning_of((FIXTURES / "chat_stream_tool_required_strict.sse").read_bytes())
    calls = tool_calls_of(meaning.tool_calls)
    assert len(meaning.tool_calls) > 2 * len(calls)
    assert len({call.id for call in calls}) == len(calls)
    assert {call.name for call in calls} == {"get_weather"}
    assert all(json.loads(call.arguments) == {"unit": "celsius"} for call in calls)


@given(
    arguments=st.lists(st.text(max_size=30), min_size=1, max_size=4),
    cuts=st.integers(1, 5),
    rng=st.randoms(use_true_random=False),
)
def test_pieces_of_parallel_calls_may_come_in_any_order_between_each_other(
    arguments: list[str], cuts: int, rng: object
) -> None:
    """Only the order within one index means anything."""
    queues = []
    for index, text in enumerate(arguments):
        head = ToolCallDelta(index=index, id=f"c{index}", function=FunctionDelta(name=f"f{index}"))
        step = max(1, len(text) // cuts)
        pieces = [text[start : start + step] for start in range(0, len(text), step)]
        tail = [ToolCallDelta(index=index, function=FunctionDelta(arguments=p)) for p in pieces]
        queues.append([head, *tail])
    merged = []
    while any(queues):
        queue = rng.choice([queue for queue in queues if queue])  # type: ignore[attr-defined]
        merged.append(queue.pop(0))
    assert tool_calls_of(merged) == tuple(
        ToolCall(id=f"c{index}", name=f"f{index}", arguments=text)
        for index, text in enumerate(arguments)
    )
