"""Versions of vLLM as people and servers write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvswarm.errors import ProfileError
from kvswarm.serving.versions import Span, Version, vllm_version

NUMBERS = st.integers(4, 400)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("0.32.0", (0, 32, 0)),
        ("0.9", (0, 9, 0)),
        ("v0.24", (0, 24, 0)),
        ("0.32.0+cpu", (0, 32, 0)),
        ("0.10.1.1", (0, 10, 1)),
        ("0.6.3.post1", (0, 6, 3)),
        ("0.11.0rc2", (0, 11, 0)),
        ("0.33.0.dev12+gabc1234.precompiled", (0, 33, 0)),
        (" v0.4.0 ", (0, 4, 0)),
    ],
)
def test_a_version_is_its_three_numbers(text: str, version: tuple[int, int, int]) -> None:
    """Servers answer /version with suffixes, and images are tagged with a v."""
    assert vllm_version(text) == version


@pytest.mark.parametrize("text", ["latest", "", "0", "0.x", "1.2.3.4.5 beta", "0.9,"])
def test_what_is_no_version_is_refused_with_an_example(text: str) -> None:
    """`latest` is the tag of an image, and says nothing."""
    with pytest.raises(ProfileError, match="no version") as caught:
        vllm_version(text)
    assert "0.32.0" in caught.value.fix


def test_what_is_older_than_the_tables_is_refused() -> None:
    """Silence would be taken for support."""
    with pytest.raises(ProfileError, match=r"older than 0\.4\.0"):
        vllm_version("0.3.3")


@given(st.tuples(NUMBERS, NUMBERS), st.tuples(NUMBERS, NUMBERS))
def test_versions_compare_by_number(left: tuple[int, int], right: tuple[int, int]) -> None:
    """0.10 is newer than 0.9, whatever their texts say."""
    a, b = (vllm_version(f"0.{minor}.{patch}") for minor, patch in (left, right))
    assert (a < b) == (left < right)


def test_a_span_holds_its_first_version_and_not_its_last() -> None:
    """`until` is the first version without it."""
    span = Span(Version(0, 5, 0), Version(0, 10, 0))
    assert Version(0, 5, 0) in span
    assert Version(0, 9, 9) in span
    assert Version(0, 10, 0) not in span
    assert Version(0, 4, 9) not in span
    assert Version(1, 0, 0) in Span()
