"""Cut the body of a response into server-sent events.

In:  the body, in pieces of any size.
Out: for each event its data and where in the piece it ended (the blank line included).
Not: JSON, tokens, stamps: see `deltas.py`.
Source: WHATWG HTML, 9.2.5 and 9.2.6. An event that no blank line ends is no event.

`cut` has a fast way for what servers send in fact (`data: ...`, blank line, LF) and falls back to
the rules in full for comments, CRLF, CR, several data lines, other fields and a byte order mark.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

LINE_END: Final = re.compile(rb"\r\n|\n|\r")
BOM: Final = b"\xef\xbb\xbf"
FIELD: Final = b"data: "
EVENT_END: Final = b"\n\n"
BETWEEN: Final = EVENT_END + FIELD


class Cut(NamedTuple):
    """Whole events, in order."""

    data: list[bytes]
    ends: NDArray[np.int64]
    """Where in the piece that was cut last each event ended; shape (events,)."""


class EventCutter:
    """Cuts a body that comes in pieces; keeps what is not whole for the next piece."""

    __slots__ = ("_rest", "_started")

    def __init__(self) -> None:
        self._rest = b""
        self._started = False

    @property
    def between_events(self) -> bool:
        """Nothing is kept, and no byte order mark can come: the next piece stands by itself."""
        return self._started and not self._rest

    def cut(self, body: bytes) -> Cut:
        """Take the next piece of the body, give the events that are whole with it."""
        text = self._rest + body if self._rest else body
        before_bytes = len(self._rest)
        if not self._started and text:
            if BOM.startswith(text[:3]) and len(text) < len(BOM):
                self._rest = text
                return Cut([], np.empty(0, dtype=np.int64))
            if text.startswith(BOM):
                text = text[len(BOM) :]
                before_bytes -= len(BOM)
            self._started = True
        cut = self._fast(text) if b"\r" not in text else None
        data, ends = cut or self._slow(text)
        return Cut(data, ends - before_bytes)

    def _fast(self, text: bytes) -> Cut | None:
        """Events of one data line each, as `data: ...`: found by counting, not one by one."""
        end = text.rfind(EVENT_END) + len(EVENT_END)
        if end < len(BETWEEN) or not text.startswith(FIELD):
            return None
        data = text[len(FIELD) : end - len(EVENT_END)].split(BETWEEN)
        # Two line feeds an event are those of its blank line: there are no other lines.
        if text.count(b"\n", 0, end) != len(EVENT_END) * len(data):
            return None
        self._rest = text[end:]
        around = len(FIELD) + len(EVENT_END)
        ends = np.fromiter(map(len, data), dtype=np.int64, count=len(data)) + around
        return Cut(data, ends.cumsum())

    def _slow(self, text: bytes) -> Cut:
        data: list[bytes] = []
        ends: list[int] = []
        lines: list[bytes] = []
        position = event_start = 0
        for match in LINE_END.finditer(text):
            if match.group() == b"\r" and match.end() == len(text):
                break  # an LF may follow: wait for it, or CRLF would count as two ends
            line = text[position : match.start()]
            position = match.end()
            if line:
                _keep_data(line, lines)
                continue
            if lines:
                data.append(b"\n".join(lines))
                ends.append(position)
                lines = []
            event_start = position
        self._rest = text[event_start:]
        return Cut(data, np.array(ends, dtype=np.int64))


def _keep_data(line: bytes, lines: list[bytes]) -> None:
    name, _, value = line.partition(b":")
    if name == b"data":
        lines.append(value.removeprefix(b" "))
