"""Read chunks that differ in their text only, without decoding each.

Nearly every event of a stream repeats the one before but for its text: the id, the model, the
rest of the JSON are the same bytes. So what stands before and after the text is learned from one
chunk that was decoded in full, and the text of every like chunk is what lies between.

In:  the data of one token-bearing chunk; then pieces that may be like it.
Out: their texts, or None where a piece is not like it.
Not: what the texts mean for the stream: see `deltas.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec

from kvswarm.stream.sse import EVENT_END, FIELD

TEXT_KEYS: Final = (b'"content":"', b'"text":"', b'"content": "', b'"text": "')
PROBE: Final = b"@"

_decode_texts = msgspec.json.Decoder(list[str]).decode


class Pattern:
    """What surrounds the text in the chunks of one stream."""

    __slots__ = ("_after", "_before", "_between", "_limit")

    def __init__(self, before: bytes, after: bytes) -> None:
        self._before = before
        self._after = after
        self._between = after + before
        # A piece that holds two chunks is longer, unless the text is longer than what surrounds it.
        self._limit = 2 * (len(before) + len(after))

    def as_event(self) -> Pattern:
        """The same for whole events, with the field name and the blank line."""
        return Pattern(FIELD + self._before, self._after + EVENT_END)

    def raw_texts(self, pieces: Sequence[bytes]) -> list[bytes | None]:
        """Give what stands where the text does, still as JSON; None for pieces that are unlike."""
        before, after, limit = self._before, self._after, self._limit
        begin, tail = len(before), len(after)
        count = len(pieces)
        while count and not pieces[count - 1].endswith(after):
            count -= 1
        like = pieces[:count]
        raw: list[bytes | None] = [piece[begin:-tail] for piece in like]
        if (
            max(map(len, like), default=0) >= limit
            or b"".join(like) != before + self._between.join(raw) + after  # type: ignore[arg-type]
        ):
            least = begin + tail
            raw = [
                text
                if least <= len(piece) < limit
                and piece.startswith(before)
                and piece.endswith(after)
                else None
                for piece, text in zip(like, raw, strict=True)
            ]
        return raw + [None] * (len(pieces) - count)


def decoded(raw: Sequence[bytes | None]) -> list[str] | None:
    """Decode raw texts; None where one of them is more, or less, than one text."""
    try:
        # The quotes that a text would have to hold to be more than a text make this fail.
        texts = _decode_texts(b'["' + b'","'.join(raw) + b'"]')  # type: ignore[arg-type]
    except (msgspec.DecodeError, UnicodeDecodeError, TypeError):
        return None
    return texts if len(texts) == len(raw) else None


def stretches(
    raw: Sequence[bytes | None], least: int, begin: int = 0
) -> Iterator[tuple[int, int, bool]]:
    """Divide pieces, counted from `begin`, into runs of at least `least` like ones and the rest.

    Give (first, end, are they like) of each, in order; together they are all pieces.
    """
    end = begin + len(raw)
    unlike = [place for place, text in enumerate(raw, begin) if text is None]
    run_begin = begin
    for place in (*unlike, end):
        if place - run_begin >= least:
            if run_begin > begin:
                yield begin, run_begin, False
            yield run_begin, place, True
            begin = place
        run_begin = place + 1
    if begin < end:
        yield begin, end, False


def learn(data: bytes, text_of: Callable[[bytes], str | None]) -> Pattern | None:
    """Find what surrounds the text of a chunk.

    `text_of` decodes a chunk and gives its text where it holds nothing else that changes with
    the token. None where the text cannot be told from the rest.
    """
    for key in TEXT_KEYS:
        start = data.find(key) + len(key)
        end = data.find(b'"', start)
        if start < len(key) or end < start:
            continue
        before, after = data[:start], data[end:]
        if text_of(before + PROBE + after) == PROBE.decode() and text_of(data):
            return Pattern(before, after)
    return None
