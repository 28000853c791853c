"""The newest pages of a file that still grows: all of them whole, and none twice."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvswarm.telemetry.pages import NewestPages, Page, append_page, read_pages


def page(source: str, number: int) -> Page:
    """A page whose text tells which it is."""
    text = f"{source} {number}\n".encode() * (number % 7 + 1)
    return Page(source=source, asked_ns=number, time_ns=number + 1, text=text)


def packed(pages: list[Page]) -> bytes:
    file = io.BytesIO()
    for each in pages:
        append_page(file, each)
    return file.getvalue()


@given(
    sources=st.lists(st.sampled_from(["a", "b", "ü"]), max_size=12),
    cuts=st.lists(st.integers(0, 2000), max_size=5),
)
def test_however_the_file_grows_the_newest_whole_page_of_each_source_is_given_once(
    tmp_path_factory: pytest.TempPathFactory, sources: list[str], cuts: list[int]
) -> None:
    """A reader looks at any moment, also while half a page is written."""
    path = tmp_path_factory.mktemp("pages") / "server.pages"
    written = packed([page(source, number) for number, source in enumerate(sources)])
    reader = NewestPages(path)
    seen = 0
    for cut in sorted({*(min(cut, len(written)) for cut in cuts), len(written)}):
        path.write_bytes(written[:cut])
        whole = list(read_pages(path))
        assert reader.read() == {each.source: each for each in whole[seen:]}
        seen = len(whole)
    assert seen == len(sources)
    assert reader.read() == {}


def test_a_damaged_page_costs_no_other(tmp_path: Path) -> None:
    path = tmp_path / "server.pages"
    first, second = page("a", 1), page("b", 2)
    broken = bytearray(packed([first]))
    broken[-3] ^= 0xFF
    path.write_bytes(bytes(broken) + packed([second]))
    assert NewestPages(path).read() == {"b": second}


def test_a_file_that_is_not_there_is_an_error_of_the_system(tmp_path: Path) -> None:
    """Who looks on knows whether that matters."""
    with pytest.raises(FileNotFoundError):
        NewestPages(tmp_path / "none").read()
