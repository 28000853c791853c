"""Which of two targets a request goes to, where one run measures both in alternating blocks.

In:  the index of a request.  Out: its pair of blocks, its arm, and whether it is of the guard.

Requests are cut into blocks by their index, and blocks come in pairs: one of each arm, in an order
that the seed draws for each pair. So what drifts meanwhile (a neighbour on the node, a clock that
throttles) hits both arms alike, and cannot keep step with the alternation. The first and last
requests of a block run while the other arm's still do: they are made, and are in no figure.
"""

from __future__ import annotations

import random
from functools import lru_cache
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from kvswarm.profiles.model import Load
from kvswarm.rundir import InterleaveInfo

ARMS: Final = ("A", "B")
LEAST_BLOCK: Final = 32
BLOCK_BY_USERS: Final = 8
"""A block has this many requests of each user, so that most of it runs at the full load."""
GUARD_OF_OPEN: Final = 8
"""Of an open loop nobody knows how many are in flight: a block's eighth is its guard."""
OPEN_BLOCK: Final = 64
LEAST_PAIRS: Final = 6
"""Of fewer pairs of blocks an interval would say nothing."""


class Interleaving(msgspec.Struct, frozen=True, kw_only=True):
    """How the requests of a run alternate between two targets."""

    block_requests: int
    guard_requests: int
    """At each end of a block, so many are in no figure."""
    seed: int

    def first_arm(self, pair: int) -> int:
        """Which arm begins a pair of blocks: 0 or 1."""
        return _drawn(self.seed, pair)

    def arm(self, index: int) -> int:
        """Which target request `index` goes to: 0 for A, 1 for B."""
        block = index // self.block_requests
        return self.first_arm(block // 2) ^ (block % 2)

    def pairs(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """The pair of blocks of each request."""
        result: NDArray[np.int64] = indices // (2 * self.block_requests)
        return result

    def arms(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """The arm of each request; the same as `arm` of each."""
        pairs, places = np.unique(self.pairs(indices), return_inverse=True)
        first = np.array([self.first_arm(int(pair)) for pair in pairs], dtype=np.int64)
        second = indices // self.block_requests % 2
        result: NDArray[np.int64] = first[places] ^ second if len(pairs) else second
        return result

    def kept(self, indices: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each request is in the figures: not of a block's guard."""
        place = indices % self.block_requests
        inside: NDArray[np.bool_] = (place >= self.guard_requests) & (
            place < self.block_requests - self.guard_requests
        )
        return inside


@lru_cache(maxsize=1024)
def _drawn(seed: int, pair: int) -> int:
    return random.Random(f"{seed}:{pair}").getrandbits(1)  # noqa: S311 - no secret


def interleaving_as(info: InterleaveInfo) -> Interleaving:
    """The alternation that run.json tells of."""
    return Interleaving(
        block_requests=info.block_requests, guard_requests=info.guard_requests, seed=info.seed
    )


def interleaving_of(load: Load, block_requests: int | None, seed: int) -> Interleaving:
    """The alternation for a load; `block_requests`: as somebody asked, else by the load."""
    if load.open_loop:
        block = block_requests or OPEN_BLOCK
        return Interleaving(block_requests=block, guard_requests=block // GUARD_OF_OPEN, seed=seed)
    users = load.peak_users
    block = block_requests or max(LEAST_BLOCK, BLOCK_BY_USERS * users)
    return Interleaving(block_requests=block, guard_requests=users, seed=seed)
