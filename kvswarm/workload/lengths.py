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


def generator(seed: int, stream: RandomStream, index: int = 0) -> np.random.Generator:
    """Make the generator of one use and index under a seed."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, stream, index])))


def draw_tokens(lengths: Lengths, rng: np.random.Generator) -> int:
    """Draw one token count. Raises ValueError for kind `file`, whose rows hold the counts."""
    if lengths.kind == "fixed":
        return int(lengths.mean_tokens)
    if lengths.kind == "uniform":
        return int(rng.integers(lengths.min_tokens, lengths.max_tokens, endpoint=True))
    if lengths.kind == "normal":
        drawn = round(rng.normal(lengths.mean_tokens, lengths.std_tokens))
        return min(max(drawn, lengths.min_tokens), lengths.max_tokens)
    raise ValueError("lengths of a file are read from its rows, not drawn")
