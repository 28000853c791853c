"""Images in a chat message: their size from the header, and the prompt tokens they cost.

In:  `data:` URLs of PNG and JPEG.  Out: placeholder words, one per token.
Source: PNG (ISO/IEC 15948) 11.2.2; JPEG (ITU T.81) B.2.2. Pixels are not decoded.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from typing import Final

from kvswarm.simulator.refusal import RequestError

TILE_PIXELS: Final = 512
PNG: Final = b"\x89PNG\r\n\x1a\n"
JPEG: Final = b"\xff\xd8"
MARKERS_WITHOUT_LENGTH: Final = frozenset({0x01, *range(0xD0, 0xD9)})
FRAME_MARKERS: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""SOF0 to SOF15; the three others are tables and a reserved one."""
END_OF_HEADERS: Final = frozenset({0xD9, 0xDA})


def image_words(url: object, tokens_per_tile: int) -> tuple[str, ...]:
    """The words that stand for an image; equal images have equal ones. Raises RequestError."""
    data = _data_of(url)
    width, height = image_size(data)
    tiles = -(-width // TILE_PIXELS) * -(-height // TILE_PIXELS)
    name = hashlib.blake2b(data, digest_size=8).hexdigest()
    return tuple(f"<image {name} {place}>" for place in range(tiles * tokens_per_tile))


def _data_of(url: object) -> bytes:
    head, comma, text = url.partition(",") if isinstance(url, str) else ("", "", "")
    if not comma or not head.startswith("data:") or not head.endswith(";base64"):
        raise RequestError(
            400,
            "image_url: only data: URLs in base64 are served, such as data:image/png;base64,",
        )
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestError(400, f"image_url: {error}") from error


def image_size(data: bytes) -> tuple[int, int]:
    """Width and height in pixels, from the header. Raises RequestError."""
    size = None
    if data.startswith(PNG) and data[12:16] == b"IHDR" and len(data) >= 24:  # noqa: PLR2004 - its end
        size = struct.unpack(">II", data[16:24])
    elif data.startswith(JPEG):
        size = _jpeg_size(data)
    if size is None or not all(size):
        raise RequestError(400, "cannot identify image file: only PNG and JPEG are served")
    return size


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    place = len(JPEG)
    while place + 9 <= len(data) and data[place] == 0xFF:  # noqa: PLR2004 - every marker's first byte
        marker = data[place + 1]
        if marker == 0xFF:  # noqa: PLR2004 - fill bytes may come before a marker
            place += 1
        elif marker in MARKERS_WITHOUT_LENGTH:
            place += 2
        elif marker in FRAME_MARKERS:
            height, width = struct.unpack(">HH", data[place + 5 : place + 9])
            return width, height
        elif marker in END_OF_HEADERS:
            return None
        else:
            place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return None
