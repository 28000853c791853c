"""Whether the load of a run was more than the server could do.

In:  a run directory that was finished.  Out: the reason, in words, or None.

With arrivals at a rate, a server that keeps up has as many requests in flight at the end as in the
middle. The mean number in flight in the second quarter of the arrivals is compared with that in the
fourth: it must have grown by more than a tenth of what arrived between them (so much of the offered
rate was not achieved), and by more than three standard deviations of chance, by which a number in
flight varies as Poisson's does. And requests of the fourth quarter must have taken longer than
those of the first: where answers are long and a run is short, that number grows for this alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from kvswarm.analysis.rows import Floats, read_rows
from kvswarm.rundir import RunDir

LEAST_GROWTH_SHARE: Final = 0.1
DEVIATIONS: Final = 3.0
LONGER: Final = 1.25
"""So many times as long as in the first quarter, at the median, requests take in the fourth."""
LEAST_ARRIVALS: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """Mean requests in flight, early and late, and how many arrived between the two."""

    early: float
    late: float
    arrived: int
    longer: float
    """Median time of the fourth quarter's requests by that of the first's."""

    @property
    def saturated(self) -> bool:
        """Whether the server fell behind, beyond what chance does."""
        growth = self.late - self.early
        chance = DEVIATIONS * math.sqrt(2.0 * max(1.0, self.early))
        beyond = growth > LEAST_GROWTH_SHARE * self.arrived and growth > chance
        return beyond and self.longer > LONGER


def saturation_of(run: RunDir, *, open_loop: bool) -> str | None:
    """Say why a run was saturated. Raises RunDirError where its files are damaged."""
    dropped = sum(worker.dropped_arrivals for worker in run.read_info().workers)
    if dropped:
        return f"{dropped} arrivals were dropped: so many requests in flight are the most allowed"
    if not open_loop:
        return None
    # From when they were sent: a generator that was late is no queue in the server. Those that were
    # cancelled in the end count as well, for they were in flight.
    parts = [(rows["sent_ns"], rows["end_ns"]) for rows in read_rows(run)]
    if not parts:
        return None
    sent_ns, end_ns = (np.concatenate(each) for each in zip(*parts, strict=True))
    there = ~np.isnan(sent_ns)
    found = growth_of(sent_ns[there], end_ns[there])
    if found is None or not found.saturated:
        return None
    share = 1.0 - (found.late - found.early) / max(1, found.arrived)
    return (
        f"requests in flight grew from {found.early:.1f} to {found.late:.1f}: only {share:.0%} of "
        "the offered rate was achieved"
    )


def growth_of(sent_ns: Floats, end_ns: Floats) -> Growth | None:
    """How the number in flight grew; None where there are too few requests to tell."""
    if len(sent_ns) < LEAST_ARRIVALS:
        return None
    start_ns = float(sent_ns.min())
    starts, ends = sent_ns - start_ns, end_ns - start_ns
    length = float(starts.max())
    if length <= 0.0:
        return None
    first, fourth = starts <= length / 4, starts >= length * 3 / 4
    between = (starts >= length * 3 / 8) & (starts < length * 7 / 8)
    usual = float(np.median((ends - starts)[first]))
    return Growth(
        early=_mean_in_flight(starts, ends, length / 4, length / 2),
        late=_mean_in_flight(starts, ends, length * 3 / 4, length),
        arrived=int(between.sum()),
        longer=float(np.median((ends - starts)[fourth])) / usual if usual > 0 else math.inf,
    )


def _mean_in_flight(starts: Floats, ends: Floats, begin: float, end: float) -> float:
    overlap = np.minimum(ends, end) - np.maximum(starts, begin)
    return float(np.clip(overlap, 0.0, None).sum()) / (end - begin)
