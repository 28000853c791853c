"""Cut the body of a response into server-sent events.

In:  the body, in pieces of any size.
Out: for each event its data and where in the body it ended (the blank line included).
Not: JSON, tokens, stamps: see `deltas.py`.
Source: WHATWG HTML, 9.2.5 and 9.2.6. An event that no blank line ends is no event.

`cut` has a fast way for what servers send in fact (`data: ...`, blank line, LF) and falls back to
the rules in full for comments, CRLF, CR, several data lines, other fields and a byte order mark.
"""

from __future__ import annotations

import re
from typing import Final

import numpy as np
from numpy.typing import NDArray

LINE_END: Final = re.compile(rb"\r\n|\n|\r")
BOM: Final = b"\xef\xbb\xbf"
FIELD: Final = b"data: "
FIELD_PLACES: Final = np.arange(len(FIELD))
FIELD_OCTETS: Final = np.frombuffer(FIELD, dtype=np.uint8)
EVENT_END: Final = b"\n\n"
BETWEEN: Final = EVENT_END + FIELD
LF: Final = 10


class Cut:
    """Whole events of a body, in order; event i ended at `ends[i]` of the body."""

    __slots__ = ("_data", "base", "begin", "ends", "text")

    def __init__(
        self,
        ends: NDArray[np.int64],
        data: list[bytes] | None = None,
        *,
        text: bytes = b"",
        base: int = 0,
        begin: int = 0,
    ) -> None:
        self.ends = ends
        self._data = data
        self.text = text
        """Events of one line of data each, and perhaps more around; empty off the fast way."""
        self.base = base
        """Where in the body `text` began."""
        self.begin = begin
        """Where in the body the first event began."""

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def data(self) -> list[bytes]:
        """The data of each event; made on demand, because the fast way can do without."""
        if self._data is None:
            self._data = self._inside().split(BETWEEN) if len(self) else []
        return self._data

    def joined(self) -> bytes | None:
        """All data with commas between, the inside of a JSON array; None off the fast way."""
        return self._inside().replace(BETWEEN, b",") if self.text and len(self) else None

    def _inside(self) -> bytes:
        begin = self.begin - self.base + len(FIELD)
        return self.text[begin : int(self.ends[-1]) - self.base - len(EVENT_END)]

    def split(self, count: int) -> tuple[Cut, Cut]:
        """The first `count` events, and those after them. For the fast way only."""
        ends = self.ends
        middle = int(ends[min(count, len(ends)) - 1]) if count and len(ends) else self.begin
        return (
            Cut(ends[:count], text=self.text, base=self.base, begin=self.begin),
            Cut(ends[count:], text=self.text, base=self.base, begin=middle),
        )


class EventCutter:
    """Cuts a body that comes in pieces; keeps what is not whole for the next piece."""

    __slots__ = ("_before_bytes", "_rest", "_started")

    def __init__(self) -> None:
        self._rest = b""
        self._before_bytes = 0
        self._started = False

    def cut(self, body: bytes) -> Cut:
        """Take the next piece of the body, give the events that are whole with it."""
        text = self._rest + body if self._rest else body
        if not self._started and text:
            if BOM.startswith(text[:3]) and len(text) < len(BOM):
                self._rest = text
                return Cut(np.empty(0, dtype=np.int64), [])
            if text.startswith(BOM):
                text = text[len(BOM) :]
                self._before_bytes += len(BOM)
            self._started = True
        return self._fast(text) if b"\r" not in text else self._slow(text)

    def _fast(self, text: bytes) -> Cut:
        """Events of one data line each, as `data: ...`: found by counting, not one by one."""
        end = text.rfind(EVENT_END) + len(EVENT_END)
        if end < len(BETWEEN) or not text.startswith(FIELD):
            return self._slow(text)
        octets = np.frombuffer(text, dtype=np.uint8, count=end)
        line_ends = np.flatnonzero(octets == LF)
        ends = line_ends[1::2] + 1
        if len(line_ends) % 2 or not (ends - line_ends[::2] == len(EVENT_END)).all():
            return self._slow(text)
        # Every event after the first must begin as the first does.
        begins = octets.take(ends[:-1, np.newaxis] + FIELD_PLACES, mode="clip")
        if not (begins == FIELD_OCTETS).all():
            return self._slow(text)
        base = self._before_bytes
        self._rest = text[end:]
        self._before_bytes += end
        return Cut(ends + base, text=text, base=base, begin=base)

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
                ends.append(self._before_bytes + position)
                lines = []
            event_start = position
        self._rest = text[event_start:]
        self._before_bytes += event_start
        return Cut(np.array(ends, dtype=np.int64), data)


def _keep_data(line: bytes, lines: list[bytes]) -> None:
    name, _, value = line.partition(b":")
    if name == b"data":
        lines.append(value.removeprefix(b" "))
