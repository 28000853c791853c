"""Un-framing gives what llhttp alone gives, however a response is cut into reads.

The reactor skips llhttp for reads that are one whole HTTP chunk each. Every read here goes
through a real socket and the reactor; the oracle feeds the same reads to llhttp, every one.
"""

from __future__ import annotations

import itertools
import socket
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kvswarm.stream.connection import Connection
from kvswarm.stream.deltas import Meaning
from kvswarm.stream.exchange import LOWER, UPPER, ChunkHeads, Exchange, ResponseParser
from kvswarm.stream.reactor import Reactor

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
EVENT = st.integers(0, 300).map(lambda size: b"data: " + b"x" * size + b"\n\n")
DATA = st.one_of(
    EVENT,
    EVENT,
    st.lists(EVENT, min_size=2, max_size=3).map(b"".join),
    st.sampled_from(
        [b"\n", b"\n\n", b"\r\n\r\n", b"data: ", b"0\r\n\r\n", b"f\r\n\n\n", b"2\r\n\n\n"]
    ),
)


def framed(data: bytes, digits: str) -> bytes:
    """One chunk of the chunked coding."""
    return format(len(data), digits).encode() + b"\r\n" + data + b"\r\n"


@st.composite
def responses(draw: st.DrawFn) -> list[bytes]:
    """Reads of one whole response: mostly a chunk each, some joined, some cut in their middle."""
    digits = draw(st.sampled_from(["x", "x", "X", "04x"]))
    chunks = [framed(data, digits) for data in draw(st.lists(DATA, max_size=12))]
    wire = [HEAD, *chunks, b"0\r\n\r\n"]
    whole = b"".join(wire)
    ends = set(itertools.accumulate(map(len, wire)))
    gone = draw(st.sets(st.sampled_from(sorted(ends)), max_size=4))
    added = draw(st.sets(st.integers(1, len(whole) - 1), max_size=4))
    places = sorted((ends - gone) | added | {0, len(whole)})
    return [whole[a:b] for a, b in itertools.pairwise(places)]


def by_llhttp(pieces: list[bytes]) -> tuple[list[bytes], int]:
    """What each read brings of the body, and the read with which the response is whole."""
    http = ResponseParser()
    bodies: list[bytes] = []
    for piece in pieces:
        http.parser.feed_data(piece)
        bodies.append(b"".join(http.parts))
        http.parts.clear()
        if http.complete:
            break
    return bodies, len(bodies)


class Wire:
    """A reactor that reads one exchange, and the peer that answers it."""

    def __init__(self) -> None:
        self.ended: list[Exchange] = []
        self.reactor = Reactor(self.ended.append)
        self.peer, ours = socket.socketpair()
        ours.setblocking(False)  # noqa: FBT003 - the signature of socket
        connection = Connection(ours)
        self.exchange = Exchange(connection, Meaning())
        self.reactor.add(connection)
        self.reactor.begin(self.exchange)

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: Any) -> None:
        self.reactor.close()
        self.peer.close()


@given(pieces=responses(), taken_after=st.integers(0, 10))
@example(  # a size cut in its middle: the rest looks like a chunk of three bytes
    pieces=[HEAD + b"1", b"3\r\nx\n\n\r\n", b"y" * 14 + b"\r\n", b"0\r\n\r\n"], taken_after=9
)
def test_reads_bring_what_llhttp_says_wherever_they_are_cut(
    pieces: list[bytes], taken_after: int
) -> None:
    """A chunk that is skipped wrongly would be tokens lost, or the end of a response missed."""
    bodies, reads_to_end = by_llhttp(pieces)
    found: list[bytes] = []
    with Wire() as wire:
        for place, piece in enumerate(pieces):
            wire.peer.sendall(piece)
            assert not wire.ended
            wire.reactor.drain()
            if place == taken_after:
                wire.exchange.feed()
                found += wire.exchange.take().bodies  # type: ignore[union-attr]
            if wire.ended:
                break
        assert wire.ended == [wire.exchange]
        assert place + 1 == reads_to_end
        assert wire.exchange.error_kind is None
        if (reads := wire.exchange.take()) is not None:
            found += reads.bodies
    assert found == bodies


class CountingParser:
    """llhttp's parser, and how often it is fed."""

    def __init__(self, parser: Any) -> None:
        self._parser = parser
        self.fed = 0

    def feed_data(self, piece: bytes) -> None:
        """Count, and feed."""
        self.fed += 1
        self._parser.feed_data(piece)


@pytest.mark.parametrize("digits", ["x", "X"])
def test_runs_of_whole_chunks_are_not_fed_to_the_parser(digits: str) -> None:
    """Or the quick way would be no way, and nobody would notice."""
    event = b"data: " + b"x" * 180 + b"\n\n"
    with Wire() as wire:
        parser = CountingParser(wire.exchange.http.parser)
        wire.exchange.http.parser = parser
        for piece in [HEAD, *[framed(event, digits)] * 40, framed(b"data: [DONE]\n\n", digits)]:
            wire.peer.sendall(piece)
            wire.reactor.drain()
        wire.exchange.feed()
        assert parser.fed <= 3
        assert wire.exchange.take().bodies[1:41] == [event] * 40  # type: ignore[union-attr]


@given(st.integers(0, 70000))
def test_the_head_of_a_chunk_is_known_from_its_whole_size(size: int) -> None:
    """A wrong one would only be slow; a right one for a wrong size would lose bytes."""
    for heads, digits in ((LOWER, "x"), (UPPER, "X")):
        head = heads[size]
        fits = [
            n for n in range(max(0, size - 12), size) if n and len(framed(b"y" * n, digits)) == size
        ]
        if fits:
            assert head == framed(b"y" * fits[0], digits)[: len(head)]
            assert len(head) + fits[0] + 2 == size
        else:
            assert head == ChunkHeads.NEVER
