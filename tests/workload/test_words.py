"""The packaged words, and how they spell an index."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kvswarm.workload.words import Leads, words


def test_there_are_1024_plain_words() -> None:
    """The index is spelled in ten bits a word; a word with a blank or capital is more tokens."""
    assert len(set(words())) == len(words()) == 1024
    assert all(word.isascii() and word.isalpha() and word.islower() for word in words())


@given(
    seed=st.integers(0, 2**63),
    one=st.integers(0, 2**30 - 1),
    other=st.integers(0, 2**30 - 1),
)
def test_different_indexes_are_spelled_differently(seed: int, one: int, other: int) -> None:
    """Below 2**30 the spelling is one to one."""
    leads = Leads(seed)
    assert (leads.words(one) == leads.words(other)) == (one == other)


@given(seed=st.integers(0, 2**63), first=st.integers(0, 2**29))
def test_neighbours_differ_in_their_first_word(seed: int, first: int) -> None:
    """Requests that are in flight together must not share even one token of the cache."""
    leads = Leads(seed)
    assert len({leads.words(first + i)[0] for i in range(1024)}) == 1024
