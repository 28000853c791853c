"""Images made on the spot, as data URLs of PNG files; no two of a run are alike.

In:  counts and sizes.  Out: parts of a chat message.
Source: PNG (ISO/IEC 15948): signature, IHDR, IDAT, IEND, each chunk with its CRC.
"""

from __future__ import annotations

import base64
import itertools
import struct
import zlib
from typing import Any, Final

import numpy as np

from kvswarm.profiles.features import Images
from kvswarm.workload.answers import Answer
from kvswarm.workload.drafts import Draft, FollowUp
from kvswarm.workload.lengths import RandomStream, generator
from kvswarm.workload.requests import LLMRequest

BLOCK_PIXELS: Final = 16
"""Squares of one colour: noise would not compress, and megabytes would be sent for it."""
RGB_8_BIT: Final = (8, 2, 0, 0, 0)
"""Bit depth, colour type RGB, deflate, adaptive filters, no interlace."""


def png(width: int, height: int, rng: np.random.Generator) -> bytes:
    """Make a PNG file of squares in random colours, of so many pixels."""
    across, down = -(-width // BLOCK_PIXELS), -(-height // BLOCK_PIXELS)
    blocks = rng.integers(0, 256, size=(down, across, 3), dtype=np.uint8)
    pixels = blocks.repeat(BLOCK_PIXELS, axis=0).repeat(BLOCK_PIXELS, axis=1)[:height, :width]
    # Every row begins with the number of its filter; 0 is none.
    rows = np.zeros((height, 1 + width * 3), dtype=np.uint8)
    rows[:, 1:] = pixels.reshape(height, width * 3)
    header = struct.pack(">II5B", width, height, *RGB_8_BIT)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in chunks)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


class ImagesFeature:
    """Puts images into the last user message: each count with each size, in turn."""

    def __init__(self, spec: Images, seed: int) -> None:
        self._seed = seed
        self._kinds = list(itertools.product(spec.counts, spec.sizes))
        self._largest = max(spec.counts)

    def shape(self, draft: Draft) -> None:
        """Turn the last message's text into parts, images first."""
        count, (width, height) = self._kinds[draft.number % len(self._kinds)]
        draft.variants.append(f"{count} x {width}x{height}" if count else "no image")
        if not count:
            return
        first = draft.number * self._largest
        parts: list[dict[str, Any]] = []
        for which in range(first, first + count):
            data = png(width, height, generator(self._seed, RandomStream.IMAGE, which))
            url = f"data:image/png;base64,{base64.b64encode(data).decode()}"
            parts.append({"type": "image_url", "image_url": {"url": url}})
        message = draft.messages[-1]
        text = {"type": "text", "text": message["content"]}
        draft.messages[-1] = {**message, "content": [*parts, text]}

    def follow_up(self, request: LLMRequest, answer: Answer) -> FollowUp | None:  # noqa: ARG002 - a feature's signature
        """Nothing comes after an answer."""
        return None
