"""The file of pages: what /metrics said, each time it was asked, as it came.

In:  moments and texts.  Out: the same. Parsing is for later: it would cost more than all the rest.
A page is a head (moment in ns, length) and the text, compressed; a file that was cut off is read up
to there.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

HEAD: Final = struct.Struct("<qI")


def append_page(file: BinaryIO, time_ns: int, text: bytes) -> None:
    """Write one page and hand it to the kernel. Raises OSError."""
    packed = zlib.compress(text, 1)
    file.write(HEAD.pack(time_ns, len(packed)) + packed)
    file.flush()


def read_pages(path: Path) -> Iterator[tuple[int, bytes]]:
    """Give moment and text of each page that is whole. Raises OSError."""
    with path.open("rb") as file:
        while len(head := file.read(HEAD.size)) == HEAD.size:
            time_ns, length = HEAD.unpack(head)
            packed = file.read(length)
            try:
                yield time_ns, zlib.decompress(packed)
            except zlib.error:  # cut short, or damaged: what follows cannot be told apart
                return
