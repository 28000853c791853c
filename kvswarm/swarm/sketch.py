"""Live percentiles that can be merged over workers, with a relative error of 1 % or less.

Buckets grow by GAMMA = 1.02 from 1 us to an hour, and a quantile is given as the middle of its
bucket, as in DDSketch (Masson, Rim, Lee, VLDB 2019). Counts are one numpy array: values are added
by the thousand, which a sketch written for one value at a time cannot do at our rates.
Figures that are kept come from the rows; this is for the eye while a run goes on.
"""

from __future__ import annotations

import math
import struct
from typing import Final

import numpy as np
from numpy.typing import NDArray

GAMMA: Final = 1.02
RELATIVE_ERROR: Final = (GAMMA - 1) / (GAMMA + 1)
BUCKETS: Final = 1 + math.ceil(math.log(3.6e9) / math.log(GAMMA))
FIRST_BUCKET: Final = struct.Struct("<I")
_LOG_GAMMA: Final = math.log(GAMMA)
MIDDLES_US: Final = 2 * GAMMA ** np.arange(BUCKETS, dtype=np.float64) / (GAMMA + 1)
"""What stands for the values of each bucket."""
MIDDLES_US[0] = 1.0


class Sketch:
    """Counts of values in us by logarithmic bucket."""

    __slots__ = ("counts",)

    def __init__(self, counts: NDArray[np.int64] | None = None) -> None:
        self.counts = np.zeros(BUCKETS, dtype=np.int64) if counts is None else counts

    def add(self, values_us: NDArray[np.floating] | NDArray[np.integer]) -> None:
        """Count values; those below 1 us fall into the first bucket."""
        if len(values_us):
            logs = np.log(np.maximum(values_us, 1.0)) / _LOG_GAMMA
            buckets = np.minimum(np.ceil(logs - 1e-9).astype(np.int64), BUCKETS - 1)
            self.counts += np.bincount(buckets, minlength=BUCKETS)

    def merge(self, other: Sketch) -> None:
        """Add the counts of another sketch."""
        self.counts += other.counts

    def quantile_ms(self, share: float) -> float | None:
        """Give the value below which `share` of all lie, in ms; None where there is none."""
        total = int(self.counts.sum())
        if not total:
            return None
        rank = max(1, math.ceil(share * total))
        bucket = int(np.searchsorted(np.cumsum(self.counts), rank))
        return float(MIDDLES_US[bucket]) / 1000

    @property
    def count(self) -> int:
        """How many values."""
        return int(self.counts.sum())

    def sum_s(self) -> float:
        """Give the sum of all values, in s: as exact as a quantile, and it never falls."""
        return float(self.counts @ MIDDLES_US) / 1e6

    def since(self, earlier: Sketch) -> Sketch:
        """What was added after `earlier`, which this sketch was."""
        return Sketch(self.counts - earlier.counts)

    def to_bytes(self) -> bytes:
        """Pack for a message: the first bucket in use, then counts up to the last; 9 kB at most."""
        used = np.flatnonzero(self.counts)
        if not len(used):
            return b""
        first, last = int(used[0]), int(used[-1])
        packed: bytes = self.counts[first : last + 1].astype("<i8").tobytes()
        return FIRST_BUCKET.pack(first) + packed

    @classmethod
    def from_bytes(cls, packed: bytes) -> Sketch:
        """Unpack what `to_bytes` gave."""
        sketch = cls()
        if packed:
            (first,) = FIRST_BUCKET.unpack_from(packed)
            counts = np.frombuffer(packed, dtype="<i8", offset=FIRST_BUCKET.size)
            sketch.counts[first : first + len(counts)] = counts
        return sketch
