"""Server-sent events: the same, wherever the network cuts the body."""

from __future__ import annotations

import itertools
import re

from hypothesis import given
from hypothesis import strategies as st

from kvswarm.stream.sse import EventCutter

LINE_ENDS = ["\n", "\r\n", "\r"]


def oracle(body: bytes) -> list[tuple[bytes, int]]:
    """The rules of WHATWG HTML 9.2.6, one line at a time; data and end of each event."""
    offset = 3 if body.startswith(b"\xef\xbb\xbf") else 0
    events, data = [], []
    for match in re.finditer(rb"([^\r\n]*)(\r\n|\n|\r)", body[offset:]):
        line = match[1]
        if not line:
            if data:
                events.append((b"\n".join(data), offset + match.end()))
            data = []
        elif line.partition(b":")[0] == b"data":
            value = line.partition(b":")[2]
            data.append(value[1:] if value.startswith(b" ") else value)
    return events


lines = st.one_of(
    st.just(""),
    st.sampled_from(
        ["data", "data:", "data: x", "data:y", ": comment", "event: e", "id: 1", "foo"]
    ),
    st.text(alphabet="abc:{} ", max_size=8).map("data: ".__add__),
)
bodies = st.builds(
    lambda parts, end, bom, tail: (
        (b"\xef\xbb\xbf" if bom else b"") + "".join(p + end for p in parts).encode() + tail
    ),
    st.lists(lines, max_size=20),
    st.sampled_from(LINE_ENDS),
    st.booleans(),
    st.sampled_from([b"", b"data: unfinished", b": k"]),
)
plain_bodies = st.lists(st.text(alphabet="abc{}:, ", max_size=8), max_size=12).map(
    lambda texts: "".join(f"data: {text}\n\n" for text in texts).encode()
)


def cut_all(pieces: list[bytes]) -> list[tuple[bytes, int]]:
    """Events of a body that comes in pieces."""
    cutter = EventCutter()
    found = []
    before = 0
    for piece in pieces:
        cut = cutter.cut(piece)
        found += zip(cut.data, (cut.ends + before).tolist(), strict=True)
        before += len(piece)
    return found


def split(body: bytes, cuts: set[int]) -> list[bytes]:
    """The body cut at these places."""
    places = sorted({cut % (len(body) + 1) for cut in cuts} | {0, len(body)})
    return [body[a:b] for a, b in itertools.pairwise(places)] or [b""]


@given(body=st.one_of(bodies, plain_bodies), cuts=st.sets(st.integers(0, 400), max_size=8))
def test_events_are_those_of_the_rules_wherever_the_body_is_cut(
    body: bytes, cuts: set[int]
) -> None:
    """TCP may split a body anywhere; the events, their order and their ends must not change."""
    expected = oracle(body)
    # A lone CR at the end may be half of a CRLF: the event shows when the next byte does.
    if body.endswith(b"\r"):
        expected = [event for event in expected if event[1] < len(body)]
        found = [event for event in cut_all(split(body, cuts)) if event[1] < len(body)]
    else:
        found = cut_all(split(body, cuts))
    assert [data for data, _ in found] == [data for data, _ in expected]
    if b"\r" not in body:
        assert found == expected


def test_a_comment_is_no_event() -> None:
    """Servers send `: keep-alive` lines."""
    cut = EventCutter().cut(b": keep-alive\n\ndata: x\n\n")
    assert cut.data == [b"x"]
    assert cut.ends.tolist() == [23]


@given(
    st.sampled_from([b"", b"\xef\xbb\xbf", b"\xef", b"data: a\n", b"data: a\n\n", b"\n", b": k"])
)
def test_the_next_piece_stands_by_itself_only_where_nothing_is_kept(body: bytes) -> None:
    """Reads that are one event each skip the cutter then: with anything kept they must not."""
    cutter = EventCutter()
    cutter.cut(body)
    alone = EventCutter()
    alone.cut(b"data: before\n\n")
    after = b"data: x\n\n"
    if cutter.between_events:
        assert cutter.cut(after).data == alone.cut(after).data == [b"x"]
    else:
        assert body in {b"", b"\xef\xbb\xbf", b"\xef", b"data: a\n", b": k"}


def test_an_event_shorter_than_a_field_name_ends_the_quick_way() -> None:
    """Found by the test above: the last event was looked at beyond its end."""
    assert EventCutter().cut(b"data: a\n\nd\n\n").data == [b"a"]
