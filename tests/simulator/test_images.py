"""Images in chat messages: what they cost, how they are cached, what is refused."""

from __future__ import annotations

import base64
import contextlib
import struct
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvswarm.simulator.images import image_size
from kvswarm.simulator.refusal import RequestError

sys.path.insert(0, str(Path(__file__).parent))
from simulating import FAST, Server, simulating


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, shade: int = 0) -> bytes:
    """A whole grey PNG."""
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress((b"\0" + bytes([shade]) * width) * height)
    parts = [chunk(b"IHDR", head), chunk(b"IDAT", rows), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def jpeg(width: int, height: int, *before: bytes, frame: int = 0xC0) -> bytes:
    """The headers of a JPEG, with these segments before that of the frame."""
    head = struct.pack(">BHHB", 8, height, width, 1) + b"\1\x11\0"
    segments = [*before, bytes([0xFF, frame]) + struct.pack(">H", len(head) + 2) + head]
    return b"\xff\xd8" + b"".join(segments) + b"\xff\xda\0\2\xff\xd9"


def segment(marker: int, data: bytes) -> bytes:
    """A segment of a JPEG."""
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


def url(data: bytes, kind: str = "png") -> str:
    """A data: URL."""
    return f"data:image/{kind};base64," + base64.b64encode(data).decode()


def message(*urls: object, text: str = "what is this") -> dict[str, Any]:
    """A user message with images."""
    parts: list[Any] = [{"type": "image_url", "image_url": {"url": one}} for one in urls]
    return {"role": "user", "content": [{"type": "text", "text": text}, *parts]}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """One quick simulator of cheap images, so that many fit the context."""
    with simulating(*FAST, "--image-tokens-per-tile", "20", "--block-size", "4") as running:
        yield running


def usage(server: Server, *messages: dict[str, Any]) -> tuple[int, int]:
    """Prompt tokens, and those of them that were cached."""
    told = server.ask(messages=[*messages]).json()["usage"]
    return told["prompt_tokens"], told["prompt_tokens_details"]["cached_tokens"]


@pytest.mark.parametrize(
    ("data", "tiles"),
    [
        (png(1, 1), 1), (png(512, 512), 1), (png(513, 512), 2), (png(1025, 513), 6),
        (jpeg(512, 512), 1), (jpeg(2000, 300), 4), (jpeg(300, 2000), 4),
    ],
)  # fmt: skip
def test_an_image_costs_tokens_by_its_started_tiles(
    data: bytes, tiles: int, server: Server
) -> None:
    """Beside the three words of the text."""
    assert usage(server, message(url(data)))[0] == 3 + 20 * tiles


def test_equal_images_hit_the_prefix_cache_and_others_do_not(server: Server) -> None:
    """In order: the prompt is what was said and shown, from the start."""
    first, second = url(png(600, 100, 1)), url(png(600, 100, 2))
    assert usage(server, message(first, second, text="a")) == (1 + 80, 0)
    assert usage(server, message(first, second, text="a")) == (1 + 80, 80)
    assert usage(server, message(first, first, text="a")) == (1 + 80, 40)
    assert usage(server, message(second, first, text="a")) == (1 + 80, 0)


def test_the_default_is_256_tokens_and_eight_images() -> None:
    """The ninth is refused in vLLM's words, before anything of it is looked at."""
    with simulating(*FAST) as running:
        eight = [url(png(9, 9, shade)) for shade in range(8)]
        assert usage(running, message(*eight))[0] == 3 + 8 * 256
        split = [message(*eight[:4]), message(*eight[4:], "no URL")]
        answer = running.ask(messages=split, stream=True)
    assert answer.status == 400
    said = answer.json()["error"]["message"]
    assert said == "At most 8 image(s) may be provided in one prompt."
    with simulating(*FAST, "--max-images", "0") as running:
        answer = running.ask(messages=[message(eight[0])])
        assert "At most 0 image(s)" in answer.json()["error"]["message"]


def test_images_count_against_the_context(server: Server) -> None:
    """20 x 20 tiles are 8000 tokens, and the context has 8192."""
    large = message(url(jpeg(512 * 20, 512 * 20)))
    assert server.ask(messages=[large], max_tokens=189).status == 200
    answer = server.ask(messages=[large], max_tokens=190)
    assert answer.status == 400
    assert "maximum context length" in answer.json()["error"]["message"]


BAD: dict[str, tuple[object, str]] = {
    "far": ("https://example.com/cat.png", "only data: URLs"),
    "no base64": ("data:image/png,abc", "only data: URLs"),
    "odd base64": ("data:image/png;base64,a", "image_url"),
    "no alphabet": ("data:image/png;base64,####", "image_url"),
    "gif": (url(b"GIF89a" + bytes(20)), "cannot identify"),
    "empty": ("data:image/png;base64,", "cannot identify"),
    "cut": (url(png(9, 9)[:20]), "cannot identify"),
    "no width": (url(png(0, 9)), "cannot identify"),
    "jpeg without a frame": (url(b"\xff\xd8" + segment(0xE0, b"JFIF") + b"\xff\xd9"), "cannot"),
    "nothing": (None, "only data: URLs"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_image_is_refused(name: str, server: Server) -> None:
    """Also what is one, but of another format."""
    address, said = BAD[name]
    answer = server.ask(messages=[message(address)], stream=True)
    assert answer.status == 400
    assert said in answer.json()["error"]["message"]


@given(
    size=st.tuples(st.integers(1, 65_535), st.integers(1, 65_535)),
    frame=st.sampled_from([0xC0, 0xC1, 0xC2, 0xCF]),
    before=st.lists(
        st.builds(segment, st.sampled_from([0xC4, 0xDB, 0xE0, 0xE1, 0xFE]), st.binary(max_size=40))
        | st.just(b"\xff"),
        max_size=5,
    ),
)
def test_the_size_of_a_jpeg_is_found_behind_whatever_comes_first(
    size: tuple[int, int], frame: int, before: list[bytes]
) -> None:
    """Tables, comments, EXIF (which may look like a frame), fill bytes; progressive ones too."""
    assert image_size(jpeg(*size, *before, frame=frame)) == size


@given(data=st.binary(max_size=60), start=st.sampled_from([b"", b"\xff\xd8", b"\x89PNG\r\n\x1a\n"]))
def test_any_bytes_are_a_size_or_a_refusal(data: bytes, start: bytes) -> None:
    """Nothing that a client sends may end the server."""
    with contextlib.suppress(RequestError):
        width, height = image_size(start + data)
        assert width > 0
        assert height > 0
