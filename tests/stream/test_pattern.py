"""The quick way through runs of like chunks says what decoding each one by itself says."""

from __future__ import annotations

from itertools import accumulate

import msgspec
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kvswarm.stream.deltas import Meaning
from kvswarm.stream.exchange import Reads
from kvswarm.stream.pattern import learn
from kvswarm.stream.sse import EventCutter

TEXTS = st.one_of(
    st.text(max_size=6),
    st.sampled_from(
        ['"', "\\", "\\\\", '","', '"},"x":{"', "\n\n", "data: ", "é", "\u2028", "[DONE]"]
    ),
)
ODD = st.sampled_from([
    b'{"choices":[]}',
    b'{"choices":[{"index":0,"delta":{"content":""},"finish_reason":null}]}',
    b'{"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":"stop"}]}',
    b'{"choices":[{"index":0,"delta":{"content":"a","reasoning":"b"},"finish_reason":null}]}',
    b'{"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null,"token_ids":[1,2]}]}',
    b'{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":3}}',
    b'{"error":{"message":"m"}}',
    b'{"choices":[{"index":0,"delta":{"content":"a","b"},"finish_reason":null}]}',
    b'{"choices":[{"index":0,"delta":{"content":"a"b"},"finish_reason":null}]}',
    b'{"choices":[{"index":0,"delta":{"content":"a\\"},"finish_reason":null}]}',
    b'{"choices":[{"index":0,"delta":{"content":"\xff"},"finish_reason":null}]}',
    b"{}",
    b"not json",
    b"[DONE]",
])  # fmt: skip


def token(text: str, *, escape: bool) -> bytes:
    """A chunk that holds a text, as one server sends it all along."""
    chunk = {
        "id": "c",
        "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}],
    }
    encoded = msgspec.json.encode(chunk)
    return encoded.decode().encode("ascii", "backslashreplace") if escape else encoded


EVENTS = st.lists(
    st.one_of(
        st.builds(token, TEXTS, escape=st.just(value=False)),
        st.builds(token, st.text("ab", max_size=3), escape=st.just(value=False)),
        ODD,
    ),
    max_size=12,
)


def said(meaning: Meaning) -> dict[str, object]:
    """All that a meaning tells."""
    told = {name: getattr(meaning, name) for name in Meaning.__slots__ if not name.startswith("_")}
    # The detail of an error may quote another position; that there is one must agree.
    told["malformed"] = meaning.malformed is not None
    told["text"] = "".join(meaning.text)
    return told | {"tokens": meaning.event_tokens, "arrivals": meaning.arrivals().tolist()}


@given(EVENTS, st.integers(1, 12))
def test_a_run_means_what_its_chunks_mean_one_by_one(events: list[bytes], cut: int) -> None:
    """Each event in a call of its own is never a run; many in one call may be."""
    bodies = [b"data: " + event + b"\n\n" for event in events]
    ends = np.array(list(accumulate(map(len, bodies))), dtype=np.int64)
    stamps_ns = np.arange(1, len(bodies) + 1, dtype=np.int64) * 1_000_000

    def absorb(meaning: Meaning, first: int, last: int) -> None:
        before = ends[first - 1] if first else 0
        meaning.absorb(
            Reads(
                b"".join(bodies[first:last]),
                ends[first:last] - before,
                stamps_ns[first:last],
                stamps_ns[first:last] + 1000,
                stamps_ns[first:last] - 500_000,
                0,
            )
        )

    one_by_one, together, in_two = Meaning(), Meaning(), Meaning()
    for place in range(len(bodies)):
        one_by_one._pattern = None
        absorb(one_by_one, place, place + 1)
    if bodies:
        absorb(together, 0, len(bodies))
        middle = min(cut, len(bodies))
        absorb(in_two, 0, middle)
        if middle < len(bodies):
            absorb(in_two, middle, len(bodies))
    assert said(together) == said(one_by_one)
    assert said(in_two) == said(one_by_one)


def test_a_run_is_found_up_to_the_first_chunk_that_differs() -> None:
    """Or the quick way would be no way, and nobody would notice."""
    bodies = [b"data: " + token(f"w{place}", escape=False) + b"\n\n" for place in range(50)]
    cut = EventCutter().cut(b"".join([*bodies, b"data: {}\n\n", b"data: [DONE]\n\n"]))
    pattern = learn(
        cut.data[0], lambda data: msgspec.json.decode(data)["choices"][0]["delta"]["content"]
    )
    assert pattern is not None
    assert pattern.run(cut) == [f"w{place}" for place in range(50)]
