"""The counts of all workers as one: what the live views show.

In:  the newest `Counts` of each worker.  Out: totals, and sketches that percentiles are read from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from kvswarm.swarm.plan import Counts
from kvswarm.swarm.sketch import Sketch
from kvswarm.swarm.standing import SKETCHES

LAG_WARNING_MS: Final = 5.0
COALESCED_WARNING_SHARE: Final = 0.05
SUMMED: Final = (
    "started", "ok", "cancelled", "in_flight", "streaming_events", "output_tokens", "coalesced",
    "token_events", "good", "checked", "valid", "dropped",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Merged:
    """Where all workers stand together."""

    total: Counts
    """Sums; without packed sketches and parts."""
    sketches: dict[str, Sketch]
    parts: dict[str, Merged]
    """Of a mix, by scenario."""

    @property
    def failed(self) -> int:
        """Requests that failed; cancelled ones did not."""
        return sum(self.total.by_error.values())

    @property
    def tokens(self) -> int:
        """Output tokens, those of streams in flight included, as far as they are known."""
        return self.total.output_tokens + self.total.streaming_events

    @property
    def coalesced_share(self) -> float:
        """Token events that shared a read with later ones, of all."""
        return self.total.coalesced / self.total.token_events if self.total.token_events else 0.0

    @property
    def falling_behind(self) -> bool:
        """The verdict so far, as far as it can be told before the rows are judged."""
        lag_ms = self.sketches["read_lag"].quantile_ms(0.99)
        return (
            lag_ms is not None
            and lag_ms > LAG_WARNING_MS
            and self.coalesced_share > COALESCED_WARNING_SHARE
        )


def merged(counts: Sequence[Counts]) -> Merged:
    """Add up the counts and sketches of some workers."""
    by_error: dict[str, int] = {}
    for count in counts:
        for kind, number in count.by_error.items():
            by_error[kind] = by_error.get(kind, 0) + number
    sums = {name: sum(getattr(count, name) for count in counts) for name in SUMMED}
    sketches = {name: Sketch() for name in SKETCHES}
    for name, sketch in sketches.items():
        for count in counts:
            sketch.merge(Sketch.from_bytes(getattr(count, name)))
    scenarios = sorted({scenario for count in counts for scenario in count.parts})
    parts = {
        scenario: merged([count.parts[scenario] for count in counts if scenario in count.parts])
        for scenario in scenarios
    }
    return Merged(Counts(**sums, by_error=by_error), sketches, parts)
