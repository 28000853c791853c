"""The quick way through runs of like chunks says what decoding each one by itself says."""

from __future__ import annotations

import itertools

import msgspec
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kvswarm.stream.deltas import Meaning
from kvswarm.stream.exchange import Reads
from kvswarm.stream.pattern import decoded, learn, stretches

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


PLAIN = st.builds(token, st.text("ab", max_size=3), escape=st.just(value=False))
EVENTS = st.lists(st.one_of(st.builds(token, TEXTS, escape=st.booleans()), PLAIN, ODD), max_size=12)
LONG = st.builds(  # long enough for runs of like reads before, between and after odd ones
    lambda parts: [event for part in parts for event in part],
    st.lists(st.one_of(st.lists(PLAIN, min_size=14, max_size=24), EVENTS), max_size=4),
)


def said(meaning: Meaning) -> dict[str, object]:
    """All that a meaning tells."""
    told = {name: getattr(meaning, name) for name in Meaning.__slots__ if not name.startswith("_")}
    # The detail of an error may quote another position; that there is one must agree.
    told["malformed"] = meaning.malformed is not None
    told["text"] = "".join(meaning.text)
    return told | {"tokens": meaning.event_tokens, "arrivals": meaning.arrivals().tolist()}


def reads_of(bodies: list[bytes], first: int, end: int) -> Reads:
    """Reads of these bodies, each at its own time wherever the whole is divided."""
    stamps_ns = np.arange(first + 1, end + 1, dtype=np.int64) * 1_000_000
    return Reads(bodies[first:end], stamps_ns, stamps_ns + 1000, stamps_ns - 500_000, 0)


def understood(bodies: list[bytes], *cuts: int) -> Meaning:
    """The meaning of reads that brought these bodies, absorbed in as many calls as `cuts` say."""
    meaning = Meaning()
    places = sorted({min(cut, len(bodies)) for cut in (0, *cuts, len(bodies))})
    for first, end in itertools.pairwise(places):
        meaning.absorb(reads_of(bodies, first, end))
    return meaning


def plainly(bodies: list[bytes]) -> Meaning:
    """The same with every chunk decoded by itself."""
    meaning = Meaning()
    for place in range(len(bodies)):
        meaning._pattern = meaning._event_pattern = None
        meaning.absorb(reads_of(bodies, place, place + 1))
    return meaning


@given(events=st.one_of(EVENTS, LONG), cut=st.integers(1, 60))
def test_a_run_means_what_its_chunks_mean_one_by_one(events: list[bytes], cut: int) -> None:
    """One event a read, as servers send them; what is odd among them must not be missed."""
    bodies = [b"data: " + event + b"\n\n" for event in events]
    assert said(understood(bodies)) == said(plainly(bodies))
    assert said(understood(bodies, cut)) == said(plainly(bodies))


@given(events=LONG, cuts=st.lists(st.integers(0, 5000), max_size=12))
def test_a_run_means_the_same_however_the_reads_cut_it(
    events: list[bytes], cuts: list[int]
) -> None:
    """Reads that hold several events, or a part of one, between runs of reads that hold one."""
    bodies = [b"data: " + event + b"\n\n" for event in events]
    joined = b"".join(bodies)
    ends = list(itertools.accumulate(map(len, bodies)))
    # Some boundaries between events go, some are added within them.
    kept = {end for place, end in enumerate(ends) if place not in set(cuts)}
    places = sorted(kept | {cut % (len(joined) + 1) for cut in cuts} | {0, len(joined)})
    pieces = [joined[a:b] for a, b in itertools.pairwise(places)]
    assert said(understood(pieces)) == said(plainly(pieces))


@given(
    raw=st.lists(st.sampled_from([b"x", b"x", b"x", None]), max_size=40),
    least=st.integers(1, 5),
    begin=st.integers(0, 3),
)
def test_stretches_are_all_pieces_in_order_and_the_like_ones_have_texts(
    raw: list[bytes | None], least: int, begin: int
) -> None:
    """A piece that fell between two stretches would be tokens lost."""
    found = list(stretches(raw, least, begin))
    assert [place for first, end, _ in found for place in range(first, end)] == list(
        range(begin, begin + len(raw))
    )
    for first, end, like in found:
        texts = raw[first - begin : end - begin]
        assert not like or (None not in texts and len(texts) >= least)
    runs = [sum(1 for _ in run) for text, run in itertools.groupby(raw) if text is not None]
    assert sum(like for _, _, like in found) == sum(run >= least for run in runs)


def text_of(data: bytes) -> str:
    """The text of a chunk made by `token`."""
    text: str = msgspec.json.decode(data)["choices"][0]["delta"]["content"]
    return text


def test_the_texts_of_like_chunks_are_found_among_others() -> None:
    """Or the quick way would be no way, and nobody would notice."""
    pattern = learn(token("a", escape=False), text_of)
    assert pattern is not None
    pieces = [token(f"w{place}", escape=False) for place in range(50)]
    texts = [f"w{place}".encode() for place in range(50)]
    assert pattern.raw_texts(pieces) == texts
    assert pattern.raw_texts([*pieces, b"{}", b"[DONE]"]) == [*texts, None, None]
    assert pattern.raw_texts([b"{}", *pieces]) == [None, *texts]
    assert decoded(texts) == [f"w{place}" for place in range(50)]
    events = [b"data: " + piece + b"\n\n" for piece in pieces]
    assert pattern.as_event().raw_texts(events) == texts


def test_two_chunks_in_one_piece_are_no_text() -> None:
    """Between the ends of the pattern they hold the pattern's own ends once more."""
    pattern = learn(token("a", escape=False), text_of)
    assert pattern is not None
    event = b"data: " + token("b", escape=False) + b"\n\n"
    assert pattern.as_event().raw_texts([event, event + event, event]) == [b"b", None, b"b"]
