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
from dataclasses import dataclass, field

LINE_END = re.compile(rb"\r\n|\n|\r")
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Cut:
    """Whole events: `data[i]` ended at `ends[i]`, counted from the start of the body."""

    data: list[bytes] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    joined: bytes | None = None
    """All data with `,` between, where the fast way gave it: the inside of a JSON array."""


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
                return Cut()
            if text.startswith(BOM):
                text = text[len(BOM) :]
                self._before_bytes += len(BOM)
            self._started = True
        return self._fast(text) if b"\r" not in text else self._slow(text)

    def _fast(self, text: bytes) -> Cut:
        whole, blank, rest = text.rpartition(b"\n\n")
        if not blank:
            self._rest = text
            return Cut()
        data = whole.split(b"\n\n")
        count = len(data)
        plain = (
            whole.count(b"\n") == 2 * (count - 1)
            and whole.startswith(b"data: ")
            and whole.count(b"\n\ndata: ") == count - 1
        )
        if not plain:
            return self._slow(text)
        self._rest = rest
        end = self._before_bytes
        ends = [end := end + len(event) + 2 for event in data]
        self._before_bytes = end
        joined = whole[6:].replace(b"\n\ndata: ", b",")
        return Cut([event[6:] for event in data], ends, joined)

    def _slow(self, text: bytes) -> Cut:
        cut = Cut()
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
                cut.data.append(b"\n".join(lines))
                cut.ends.append(self._before_bytes + position)
                lines = []
            event_start = position
        self._rest = text[event_start:]
        self._before_bytes += event_start
        return cut


def _keep_data(line: bytes, lines: list[bytes]) -> None:
    name, _, value = line.partition(b":")
    if name == b"data":
        lines.append(value.removeprefix(b" "))
