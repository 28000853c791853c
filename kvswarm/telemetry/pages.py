"""The file of pages: what metrics endpoints said, each time they were asked, as it came.

In:  `Page`s.  Out: the same. Parsing is for later: it would cost more than all the rest.
A page is a head (moments in ns, lengths), the name of its source and the text, compressed; a file
that was cut off is read up to there.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

HEAD: Final = struct.Struct("<qqHI")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One answer of one source. Moments are ns of CLOCK_REALTIME."""

    source: str
    """Its name, which tables call the replica."""
    asked_ns: int
    """When it was asked: the text is no older than this."""
    time_ns: int
    """When the answer had been read whole: the text is no newer than this."""
    text: bytes


def append_page(file: BinaryIO, page: Page) -> None:
    """Write one page and hand it to the kernel. Raises OSError; half a page ends the file."""
    name, packed = page.source.encode(), zlib.compress(page.text, 1)
    head = HEAD.pack(page.asked_ns, page.time_ns, len(name), len(packed))
    left = memoryview(head + name + packed)
    while left:
        left = left[file.write(left) :]
    file.flush()


def read_pages(path: Path) -> Iterator[Page]:
    """Give each page that is whole, in the order of their writing. Raises OSError."""
    with path.open("rb") as file:
        while len(head := file.read(HEAD.size)) == HEAD.size:
            asked_ns, time_ns, name_bytes, packed_bytes = HEAD.unpack(head)
            try:
                source = file.read(name_bytes).decode()
                text = zlib.decompress(file.read(packed_bytes))
            except (zlib.error, UnicodeDecodeError):
                return  # cut short, or damaged: what follows cannot be told apart
            yield Page(source=source, asked_ns=asked_ns, time_ns=time_ns, text=text)


class NewestPages:
    """Reads a file of pages that still grows: of what was added, the newest page of each source.

    Others are skipped unread: unpacking all of them would cost whoever looks on too much.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset_bytes = 0

    def read(self) -> dict[str, Page]:
        """Give the newest page by source, of those since the last call. Raises OSError.

        A page of which only a part is there yet is left for the next call.
        """
        newest: dict[str, tuple[int, int, int, int]] = {}
        with self._path.open("rb") as file:
            size_bytes = file.seek(0, os.SEEK_END)
            while self._offset_bytes + HEAD.size <= size_bytes:
                file.seek(self._offset_bytes)
                asked_ns, time_ns, name_bytes, packed_bytes = HEAD.unpack(file.read(HEAD.size))
                text_at = self._offset_bytes + HEAD.size + name_bytes
                if text_at + packed_bytes > size_bytes:
                    break
                source = file.read(name_bytes).decode("utf-8", "replace")
                newest[source] = (asked_ns, time_ns, text_at, packed_bytes)
                self._offset_bytes = text_at + packed_bytes
            pages = {}
            for source, (asked_ns, time_ns, text_at, packed_bytes) in newest.items():
                file.seek(text_at)
                try:
                    text = zlib.decompress(file.read(packed_bytes))
                except zlib.error:
                    continue  # damaged: the next page of it may be whole
                pages[source] = Page(source=source, asked_ns=asked_ns, time_ns=time_ns, text=text)
        return pages
