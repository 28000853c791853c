"""Where a worker stands, for the live view: counts and sketches of what it has recorded.

In:  records as they are made.  Out: the message that the master merges over workers, and that.
Not: figures that are kept: those come from the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from kvswarm.records import Record
from kvswarm.swarm.plan import Counts
from kvswarm.swarm.sketch import Sketch

SKETCHES: Final = ("ttft", "itl", "e2e", "tpot", "read_lag")
"""What is sketched, by its name in `Counts`."""
LATE_MS: Final = 5.0
COALESCED_LIMIT_SHARE: Final = 0.05
"""Both are exceeded by a generator that falls behind: one alone is no harm to the figures."""


class Standing:
    """Totals since the start of the run."""

    def __init__(self) -> None:
        self.counts = Counts()
        self._sketches = {name: Sketch() for name in SKETCHES}

    def add(self, records: Sequence[Record]) -> None:
        """Count records: many at a time, because the sketches are made for that."""
        counts, sketches = self.counts, self._sketches
        passed = [record for record in records if record.ok]
        for record in records:
            if record.error_kind == "cancelled":
                counts.cancelled += 1
            elif record.error_kind is not None:
                kind = record.error_kind
                counts.by_error[kind] = counts.by_error.get(kind, 0) + 1
            counts.coalesced += record.coalesced_events
            counts.token_events += record.events
        counts.ok += len(passed)
        counts.output_tokens += sum(record.completion_tokens or record.events for record in passed)
        if passed:
            sketches["ttft"].add(np.array([(record.ttft_ms or 0) * 1e3 for record in passed]))
            sketches["e2e"].add(np.array([(record.e2e_ms or 0) * 1e3 for record in passed]))
            sketches["tpot"].add(
                np.array([tpot_ms * 1e3 for r in passed if (tpot_ms := r.tpot_ms) is not None])
            )
            sketches["itl"].add(np.concatenate([record.itl_us for record in passed]))
            sketches["read_lag"].add(np.concatenate([record.read_lag_us for record in passed]))

    def packed(self) -> dict[str, Any]:
        """Plain data for a message."""
        plain = {name: getattr(self.counts, name) for name in Counts.__struct_fields__}
        plain["by_error"] = dict(self.counts.by_error)
        plain.update({name: sketch.to_bytes() for name, sketch in self._sketches.items()})
        return plain


@dataclass(frozen=True, slots=True)
class Merged:
    """Where all workers stand together."""

    counts: Counts
    """Sums; its packed sketches are empty."""
    sketches: dict[str, Sketch]
    """By the names of SKETCHES."""

    @property
    def coalesced_share(self) -> float:
        """Token events whose own arrival is not known, of all; 0 to 1."""
        counts = self.counts
        return counts.coalesced / counts.token_events if counts.token_events else 0.0


def merge(workers: Sequence[Counts]) -> Merged:
    """Add up what the workers have sent."""
    total, sketches = Counts(), {name: Sketch() for name in SKETCHES}
    plain = [name for name in Counts.__struct_fields__ if isinstance(getattr(total, name), int)]
    for counts in workers:
        for name in plain:
            setattr(total, name, getattr(total, name) + getattr(counts, name))
        for kind, number in counts.by_error.items():
            total.by_error[kind] = total.by_error.get(kind, 0) + number
        for name, sketch in sketches.items():
            if packed := getattr(counts, name):
                sketch.merge(Sketch.from_bytes(packed))
    return Merged(total, sketches)


def keeps_up(read_lag_p99_ms: float | None, coalesced_share: float) -> bool:
    """Tell whether the generator keeps up, as far as that shows before the rows are judged."""
    return (read_lag_p99_ms or 0.0) <= LATE_MS or coalesced_share <= COALESCED_LIMIT_SHARE
