"""What a difference between requests costs: medians against medians, with an interval.

In:  values of two kinds of requests, paired or not.  Out: `Effect`s in the unit of the values.
Without an assumption on how the values are distributed:

- Paired: the median of the differences; its interval from the order statistics whose ranks the
  binomial distribution gives (the interval of the sign test; Conover, Practical Nonparametric
  Statistics, 1999, 3.2).
- Unpaired: the difference of the medians; the variance of each from its order statistics (Price
  and Bonett, Journal of Statistical Computation and Simulation 68, 2001, 295-305).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

CONFIDENCE: Final = 0.95
LEAST_PAIRS: Final = 6
"""Fewer pairs give no interval of 95 %: all of 5 on one side happens in 1 of 16 cases."""
LEAST_VALUES: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """By how much the one is above the other, in the unit of the figure."""

    difference: float
    low: float | None
    high: float | None
    """Interval of 95 %; None where there are too few values."""
    reference: float
    """Median of what it is compared with."""
    count: int
    """Pairs, or values of the smaller side."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data; `change_share` is the difference by the reference."""
        change = self.difference / self.reference if self.reference else None
        return {
            "difference": self.difference,
            "low": self.low,
            "high": self.high,
            "reference": self.reference,
            "change_share": change,
            "count": self.count,
        }


def paired_effect(ones: Floats, others: Floats) -> Effect | None:
    """Compare values pair by pair, shape (pairs,) each; None where there are none."""
    there = ~(np.isnan(ones) | np.isnan(others))
    ones, others = ones[there], others[there]
    if not len(ones):
        return None
    differences = np.sort(ones - others)
    rank = _sign_test_rank(len(differences))
    return Effect(
        difference=float(np.median(differences)),
        low=None if rank is None else float(differences[rank]),
        high=None if rank is None else float(differences[-1 - rank]),
        reference=float(np.median(others)),
        count=len(differences),
    )


def unpaired_effect(ones: Floats, others: Floats) -> Effect | None:
    """Compare the medians of two samples; None where one is empty."""
    ones, others = ones[~np.isnan(ones)], others[~np.isnan(others)]
    if not len(ones) or not len(others):
        return None
    difference = float(np.median(ones) - np.median(others))
    half = None
    if min(len(ones), len(others)) >= LEAST_VALUES:
        variance = _median_variance(ones) + _median_variance(others)
        half = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * math.sqrt(variance)
    return Effect(
        difference=difference,
        low=None if half is None else difference - half,
        high=None if half is None else difference + half,
        reference=float(np.median(others)),
        count=min(len(ones), len(others)),
    )


def _sign_test_rank(count: int) -> int | None:
    """Largest r for which fewer than r + 1 of `count` fair coins fall heads in 2.5 % at most."""
    if count < LEAST_PAIRS:
        return None
    spread = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * math.sqrt(count) / 2
    rank = max(0, math.floor(count / 2 - spread) - 1)
    tail = (1 - CONFIDENCE) / 2
    # The normal approximation is near; the binomial distribution itself decides.
    while rank > 0 and _at_most(rank, count) > tail:
        rank -= 1
    while _at_most(rank + 1, count) <= tail:
        rank += 1
    return rank


def _at_most(heads: int, count: int) -> float:
    """Probability of at most so many heads of `count` fair coins."""
    logs = [
        math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1)
        for k in range(heads + 1)
    ]
    return math.fsum(math.exp(log - count * math.log(2)) for log in logs)


def _median_variance(values: Floats) -> float:
    """Variance of the sample median, from the order statistics around it."""
    ordered = np.sort(values)
    count = len(ordered)
    below = max(1, round((count + 1) / 2 - math.sqrt(count)))
    coverage = 1 - 2 * _at_most(below - 1, count)
    z = NormalDist().inv_cdf((1 + coverage) / 2)
    return float(((ordered[count - below] - ordered[below - 1]) / (2 * z)) ** 2)


UNITS: Final = {
    "ttft_ms": ("TTFT", "ms"),
    "itl_ms": ("ITL", "ms"),
    "tpot_ms": ("TPOT", "ms"),
    "e2e_ms": ("E2E", "ms"),
    "output_tokens_per_s": ("tokens/s", "tokens/s"),
    "tokens_per_event": ("tokens per event", "tokens"),
}
"""Figures that effects are told of: what people call them, and their units."""


def effect_text(effect: Mapping[str, Any]) -> str:
    """An effect of summary.json in words: `TTFT +1.20 ms (+4.1 %; 95 %: +0.80 to +1.50)`."""
    name, unit = UNITS[effect["figure"]]
    parts = []
    if effect["change_share"] is not None:
        parts.append(f"{effect['change_share']:+.1%}")
    if effect["low"] is not None:
        parts.append(f"95 %: {effect['low']:+.2f} to {effect['high']:+.2f}")
    else:
        parts.append(f"of {effect['count']} only")
    return f"{name} {effect['difference']:+.2f} {unit} ({'; '.join(parts)})"
