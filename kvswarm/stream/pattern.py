"""Read a run of chunks that differ in their text only, without decoding each.

Nearly every event of a stream repeats the one before but for its text: the id, the model, the
rest of the JSON are the same bytes. So what stands before and after the text is learned from one
chunk that was decoded in full, and a run of such events is one split.

In:  whole events, and the data of one token-bearing chunk.
Out: the texts of the run, or None where it is not exactly such a run.
Not: what the texts mean for the stream: see `deltas.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec
import numpy as np

from kvswarm.stream.sse import BETWEEN, EVENT_END, FIELD, Cut

TEXT_KEYS: Final = (b'"content":"', b'"text":"', b'"content": "', b'"text": "')
PROBE: Final = b"@"

_decode_texts = msgspec.json.Decoder(list[str]).decode


class Pattern:
    """What surrounds the text in the chunks of one stream."""

    __slots__ = ("_after", "_before", "_between")

    def __init__(self, before: bytes, after: bytes) -> None:
        self._before = FIELD + before
        self._after = after
        self._between = after + BETWEEN + before

    def run(self, cut: Cut) -> list[str] | None:
        """Give the texts of the first events, as many as fit (the fast way of `sse.py` only).

        None where none fits, or one does not that stands before others that do.
        """
        before, after, text = self._before, self._after, cut.text
        begin = cut.begin - cut.base
        ends = cut.ends - cut.base
        stop = int(ends[-1]) - len(EVENT_END)
        if not text.endswith(after, begin, stop):
            stop = text.rfind(after + EVENT_END, begin, stop) + len(after)
        count = int(np.searchsorted(ends, stop + len(EVENT_END))) + 1
        starts = np.concatenate(([begin], ends[: count - 1])) + len(before)
        stops = ends[:count] - (len(after) + len(EVENT_END))
        if stop < begin + len(before) or (stops < starts).any():
            return None
        raw = [text[a:b] for a, b in zip(starts.tolist(), stops.tolist(), strict=True)]
        if not text.startswith(before + self._between.join(raw) + after, begin):
            return None
        try:
            # The quotes that a text would have to hold to be more than a text make this fail.
            texts = _decode_texts(b'["' + b'","'.join(raw) + b'"]')
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        return texts if len(texts) == count else None


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
