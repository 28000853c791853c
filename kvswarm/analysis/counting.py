"""Exact percentiles of many values in bounded memory.

In:  values in whole us, any number of them, in pieces.
Out: a latency `{mean,min,max,std,p50,...,count}` in ms.

Values below a second (2**20 us) are counted in one array of 8 MiB; the few above are kept. So
the percentiles are those of all values, to the us: linear interpolation between the two nearest
ranks, as numpy's default (method 7 of Hyndman and Fan, 1996). std is that of the population.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

COUNTED_BELOW_US: Final = 1 << 20
PERCENTILES: Final = {
    "p50": 0.50, "p75": 0.75, "p90": 0.90, "p95": 0.95, "p99": 0.99, "p999": 0.999,
}  # fmt: skip
STATISTICS: Final = ("mean", "min", "max", "std", *PERCENTILES, "count")


class Tally:
    """Counts values; see the module."""

    def __init__(self) -> None:
        self._counts = np.zeros(0, dtype=np.int64)
        self._large: list[NDArray[np.int64]] = []
        self.count = 0

    def add(self, values_us: NDArray[Any]) -> None:
        """Add values in us; they are rounded to whole ones, those below 0 count as 0."""
        if not len(values_us):
            return
        if values_us.dtype.kind == "f":
            values_us = np.rint(values_us)
        whole = values_us.astype(np.int64, copy=False)
        self.count += len(whole)
        if whole.min() < 0:
            whole = np.maximum(whole, 0)
        if whole.max() >= COUNTED_BELOW_US:
            self._large.append(whole[whole >= COUNTED_BELOW_US])
            whole = whole[whole < COUNTED_BELOW_US]
        counts = np.bincount(whole)
        if len(counts) > len(self._counts):
            counts[: len(self._counts)] += self._counts
            self._counts = counts
        else:
            self._counts[: len(counts)] += counts

    def count_below(self, limit_us: float) -> int:
        """How many values are below a limit."""
        small = int(self._counts[: math.ceil(min(limit_us, COUNTED_BELOW_US))].sum())
        return small + sum(int((large < limit_us).sum()) for large in self._large)

    def quantile_us(self, share: float) -> float | None:
        """Give a quantile in us; None where there are no values."""
        if not self.count:
            return None
        rank = share * (self.count - 1)
        low = self._at(math.floor(rank))
        high = self._at(math.ceil(rank))
        return low + (high - low) * (rank - math.floor(rank))

    def quantile_ms(self, share: float) -> float | None:
        """Give a quantile in ms; None where there are no values."""
        value_us = self.quantile_us(share)
        return None if value_us is None else value_us / 1000

    def _at(self, rank: int) -> int:
        ends = np.cumsum(self._counts)
        counted = int(ends[-1]) if len(ends) else 0
        if rank < counted:
            return int(np.searchsorted(ends, rank, side="right"))
        return int(np.sort(np.concatenate(self._large))[rank - counted])

    def latency(self) -> dict[str, float | int | None]:
        """All statistics in ms; None each, and count 0, where there are no values."""
        if not self.count:
            return {**dict.fromkeys(STATISTICS), "count": 0}
        values = np.flatnonzero(self._counts)
        weights = self._counts[values]
        if self._large:
            large = np.concatenate(self._large)
            values = np.concatenate((values, large))
            weights = np.concatenate((weights, np.ones(len(large), dtype=np.int64)))
        mean_us = float(np.average(values, weights=weights))
        std_us = math.sqrt(float(np.average((values - mean_us) ** 2, weights=weights)))
        figures: dict[str, float | int | None] = {
            "mean": mean_us / 1000,
            "min": int(values.min()) / 1000,
            "max": int(values.max()) / 1000,
            "std": std_us / 1000,
        }
        for name, share in PERCENTILES.items():
            figures[name] = self.quantile_ms(share)
        return {**figures, "count": self.count}
