"""Blocks of two targets: each pair has one of each, in both orders, and their ends are left out."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kvswarm.workload.interleaving import Interleaving

ALTERNATIONS = st.builds(
    Interleaving,
    block_requests=st.integers(3, 60),
    guard_requests=st.just(1),
    seed=st.integers(0, 2**32),
)


@given(alternation=ALTERNATIONS, pairs=st.integers(1, 12))
def test_a_pair_has_as_many_requests_of_the_one_as_of_the_other(
    alternation: Interleaving, pairs: int
) -> None:
    """And what one process decides by itself is what the analysis finds in the table."""
    block = alternation.block_requests
    indices = np.arange(2 * block * pairs)
    arms, numbers = alternation.arms(indices), alternation.pairs(indices)
    assert arms.tolist() == [alternation.arm(int(index)) for index in indices]
    for pair in range(pairs):
        here = arms[numbers == pair]
        assert here.sum() * 2 == len(here) == 2 * block
        assert len(set(here[:block].tolist())) == 1


@given(alternation=ALTERNATIONS)
def test_the_ends_of_a_block_are_left_out(alternation: Interleaving) -> None:
    """The first and the last request of each, here."""
    block = alternation.block_requests
    kept = alternation.kept(np.arange(3 * block)).reshape(3, block)
    assert not kept[:, 0].any()
    assert not kept[:, -1].any()
    assert kept[:, 1:-1].all()


def test_the_seed_draws_both_orders() -> None:
    """What keeps step with the alternation would be in the difference."""
    alternation = Interleaving(block_requests=10, guard_requests=1, seed=7)
    first = [alternation.first_arm(pair) for pair in range(200)]
    assert 70 < sum(first) < 130
