"""The KV cache of the simulated engine: blocks, shared prefixes, eviction.

Blocks of a prompt that are full are known by the hash of their tokens and all before, as in
vLLM's prefix cache. Such a block is shared while in use, and stays until it is evicted, the one
that was longest unused first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Holding:
    """What one sequence holds: shared blocks by hash, and a number of its own."""

    shared: list[int] = field(default_factory=list)
    own: int = 0

    @property
    def blocks(self) -> int:
        """Blocks held."""
        return len(self.shared) + self.own


class BlockPool:
    """All blocks: free, held by sequences, or kept because they may be used again."""

    def __init__(self, total: int, *, caching: bool) -> None:
        self.total = total
        self._caching = caching
        self._free = total
        self._users: dict[int, int] = {}
        self._kept: OrderedDict[int, None] = OrderedDict()

    @property
    def available(self) -> int:
        """Blocks that can be taken: free ones, and kept ones by eviction."""
        return self._free + len(self._kept)

    @property
    def used_share(self) -> float:
        """Share of the blocks that sequences hold (0 to 1)."""
        return 1.0 - self.available / self.total

    def take_prefix(self, hashes: Sequence[int], holding: Holding) -> int:
        """Share the longest known prefix; give its number of blocks."""
        hits = 0
        for block in hashes:
            if block in self._kept:
                del self._kept[block]
                self._users[block] = 1
            elif block in self._users:
                self._users[block] += 1
            else:
                break
            holding.shared.append(block)
            hits += 1
        return hits

    def take(self, count: int, holding: Holding) -> bool:
        """Take blocks, evicting kept ones; False, and none taken, where there are too few."""
        if count > self.available:
            return False
        while self._free < count:
            self._kept.popitem(last=False)
            self._free += 1
        self._free -= count
        holding.own += count
        return True

    def publish(self, hashes: Sequence[int], holding: Holding) -> None:
        """Make the full prompt blocks of a prefilled sequence known to others."""
        if not self._caching:
            return
        for block in hashes[len(holding.shared) :]:
            if holding.own and block not in self._users and block not in self._kept:
                holding.own -= 1
                holding.shared.append(block)
                self._users[block] = 1
            else:
                break

    def release(self, holding: Holding) -> None:
        """Give back everything that a sequence holds."""
        self._free += holding.own
        holding.own = 0
        for block in reversed(holding.shared):
            self._users[block] -= 1
            if not self._users[block]:
                del self._users[block]
                self._kept[block] = None
        holding.shared.clear()
