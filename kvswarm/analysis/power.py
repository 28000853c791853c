"""Power of a GPU over time, and the energy that it makes of a window.

In:  power (or a counter of energy) that DCGM or Triton told, page by page, and the window, ns.
Out: `Observed`: the energy of what was seen, and how much of the window that is.

Between two pages power is taken to go in a straight line (the trapezoidal rule), unless they are so
far apart that nobody knows. What nobody saw is taken to be as what was seen; where that is too much
of the window, there is no energy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from kvswarm.analysis.series import Integers, Series

GAP_S: Final = 5.0
GAP_PAGES: Final = 3.0
"""Pages further apart than this many usual distances, and than GAP_S, have a gap between them."""
LEAST_OBSERVED_SHARE: Final = 0.9
"""Below this share of the window there is no energy."""
NS_PER_S: Final = 1e9


@dataclass(frozen=True, slots=True)
class Observed:
    """Energy over the part of a window that was seen."""

    energy_j: float
    observed_s: float
    window_s: float
    longest_gap_s: float
    """The longest stretch of the window that nobody saw."""

    @property
    def observed_share(self) -> float:
        """Of the window."""
        return min(1.0, self.observed_s / self.window_s) if self.window_s > 0 else 0.0

    @property
    def whole_j(self) -> float | None:
        """Of the whole window, the unseen part as the seen; None where too little was seen."""
        if self.observed_share < LEAST_OBSERVED_SHARE:
            return None
        return self.energy_j / self.observed_share


def gap_ns(times_ns: Integers) -> float:
    """From which distance on two pages have a gap between them."""
    usual_ns = float(np.median(np.diff(times_ns))) if len(times_ns) > 1 else 0.0
    return max(GAP_S * NS_PER_S, GAP_PAGES * usual_ns)


def by_power(power: Series, start_ns: int, end_ns: int) -> Observed:
    """Integrate power, W, over a window: linear between pages, also at the window's edges."""
    times = (power.times_ns - np.int64(start_ns)).astype(np.float64)
    length_ns = float(end_ns - start_ns)
    begins, ends = times[:-1], times[1:]
    seen = (ends - begins <= gap_ns(power.times_ns)) & (ends > begins)
    seen &= (ends > 0) & (begins < length_ns)
    begins, ends = begins[seen], ends[seen]
    first, last = np.maximum(begins, 0.0), np.minimum(ends, length_ns)
    watts, later = power.values[:-1][seen], power.values[1:][seen]
    slope = (later - watts) / (ends - begins)
    middle = watts + slope * ((first + last) / 2 - begins)
    edges = np.concatenate(([0.0], np.ravel(np.column_stack((first, last))), [length_ns]))
    return Observed(
        energy_j=float((middle * (last - first)).sum()) / NS_PER_S,
        observed_s=float((last - first).sum()) / NS_PER_S,
        window_s=length_ns / NS_PER_S,
        longest_gap_s=float(np.diff(edges)[::2].max()) / NS_PER_S,
    )


def by_counter(counter: Series, start_ns: int, end_ns: int) -> Observed:
    """Growth of a counter, J, over a window; one that falls was started anew, and counts from 0."""
    times = (counter.times_ns - np.int64(start_ns)).astype(np.float64)
    length_ns = float(end_ns - start_ns)
    steps = np.diff(counter.values, prepend=counter.values[:1])
    grown = np.cumsum(np.where(steps < 0, counter.values, steps))
    first = min(max(float(times[0]), 0.0), length_ns)
    last = max(min(float(times[-1]), length_ns), first)
    at_edges = np.interp([first, last], times, grown)
    return Observed(
        energy_j=float(at_edges[1] - at_edges[0]),
        observed_s=(last - first) / NS_PER_S,
        window_s=length_ns / NS_PER_S,
        longest_gap_s=max(first, length_ns - last) / NS_PER_S,
    )


@dataclass(frozen=True, slots=True)
class GpuPower:
    """What one GPU told of its power and energy, in W and J; None: it did not."""

    power: Series | None
    counter: Series | None

    def over(self, start_ns: int, end_ns: int) -> tuple[str, Observed] | None:
        """Its energy, by power where it tells that; None where it tells nothing."""
        if self.power is not None and len(self.power.times_ns) > 1:
            return "power", by_power(self.power, start_ns, end_ns)
        if self.counter is None or len(self.counter.times_ns) <= 1:
            return None
        found = by_counter(self.counter, start_ns, end_ns)
        return ("counter", found) if found.energy_j > 0 else None  # one that stands still is old
