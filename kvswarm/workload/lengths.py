"""Draw token counts, and derive the random numbers that a request depends on.

Everything about request `index` comes from a generator of (seed, stream, index) alone, so any
worker makes the same request in any order.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from kvswarm.profiles.model import Lengths


class RandomStream(IntEnum):
    """What random numbers are for; each use has numbers of its own under one seed."""

    REQUEST = 1
    PREFIX = 2
    LEAD = 3
    ROWS = 4
    ARRIVALS = 5
    FEATURE = 6
    MIX = 7
    IMAGE = 8


class Draws:
    """The random numbers of one use under a seed, by index: a counter-based generator (Philox).

    One generator is set to the index that is wanted: a new one would cost more than its numbers.
    """

    def __init__(self, seed: int, stream: RandomStream) -> None:
        key = np.random.SeedSequence([seed, stream]).generate_state(2, np.uint64)
        self._bits = np.random.Philox(key=key)
        self._generator = np.random.Generator(self._bits)
        self._fresh = self._bits.state

    def at(self, index: int) -> np.random.Generator:
        """Set the generator to the numbers of `index` and give it: good until the next call."""
        self._fresh["state"]["counter"][1] = index
        self._bits.state = self._fresh
        return self._generator


def generator(seed: int, stream: RandomStream, index: int = 0) -> np.random.Generator:
    """Make a generator of its own with the numbers of one use and index under a seed."""
    return Draws(seed, stream).at(index)


def draw_tokens(lengths: Lengths, rng: np.random.Generator, place: int = 0) -> int:
    """Draw one token count; `values` take turns by `place`.

    Raises ValueError for kind `file`, whose rows hold the counts.
    """
    if lengths.kind == "values":
        return lengths.values[place % len(lengths.values)]
    if lengths.kind == "fixed":
        return int(lengths.mean_tokens)
    if lengths.kind == "uniform":
        return int(rng.integers(lengths.min_tokens, lengths.max_tokens, endpoint=True))
    if lengths.kind == "normal":
        drawn = round(rng.normal(lengths.mean_tokens, lengths.std_tokens))
        return min(max(drawn, lengths.min_tokens), lengths.max_tokens)
    raise ValueError("lengths of a file are read from its rows, not drawn")
