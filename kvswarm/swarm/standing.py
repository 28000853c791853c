"""Where a worker stands, for the live view: counts and sketches of what it has recorded.

In:  records as they are made.  Out: the message that the master merges over workers, and that.
Not: figures that are kept: those come from the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from kvswarm.profiles.model import Profile
from kvswarm.records import Record
from kvswarm.swarm.plan import Counts
from kvswarm.swarm.sketch import Sketch
from kvswarm.swarm.slo import Slos

SKETCHES: Final = ("ttft", "itl", "tpot", "e2e", "read_lag")
"""What is sketched, by its name in `Counts`."""


class Standing:
    """Totals since the start of the run, warm-up and cool-down included."""

    def __init__(self, profile: Profile) -> None:
        self.counts = Counts()
        self._slos = Slos(profile.slo)
        self._total = Part(self.counts)
        self._parts: dict[str, Part] = {}
        self._is_mix = bool(profile.mix)

    def add(self, records: Sequence[Record]) -> None:
        """Count records: many at a time, because the sketches are made for that."""
        good = [self._slos.met_by(record) for record in records]
        self._total.add(records, sum(good))
        if self._is_mix:
            for scenario in {record.scenario for record in records}:
                mine = [record.scenario == scenario for record in records]
                part = self._parts.setdefault(scenario, Part(Counts()))
                part.add(
                    [record for record, is_mine in zip(records, mine, strict=True) if is_mine],
                    sum(is_good and is_mine for is_good, is_mine in zip(good, mine, strict=True)),
                )

    def packed(self) -> dict[str, Any]:
        """Plain data for a message."""
        parts = {scenario: part.packed() for scenario, part in self._parts.items()}
        return {**self._total.packed(), "parts": parts}


class Part:
    """Counts and sketches of some requests: of all, or of one scenario."""

    def __init__(self, counts: Counts) -> None:
        self.counts = counts
        self._sketches = {name: Sketch() for name in SKETCHES}

    def add(self, records: Sequence[Record], good: int) -> None:
        """Count records, so many of which are goodput."""
        counts = self.counts
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
        counts.good += good
        counts.checked += sum(record.output_valid is not None for record in passed)
        counts.valid += sum(record.output_valid is True for record in passed)
        counts.output_tokens += sum(record.completion_tokens or record.events for record in passed)
        if passed:
            sketches = self._sketches
            sketches["ttft"].add(_us([record.ttft_ms for record in passed]))
            sketches["tpot"].add(_us([record.tpot_ms for record in passed]))
            sketches["e2e"].add(_us([record.e2e_ms for record in passed]))
            sketches["itl"].add(np.concatenate([record.itl_us for record in passed]))
            sketches["read_lag"].add(np.concatenate([record.read_lag_us for record in passed]))

    def packed(self) -> dict[str, Any]:
        """Plain data for a message."""
        plain = {name: getattr(self.counts, name) for name in Counts.__struct_fields__}
        plain["by_error"] = dict(self.counts.by_error)
        plain.update({name: sketch.to_bytes() for name, sketch in self._sketches.items()})
        return plain


def _us(values_ms: Sequence[float | None]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Those that are there, in us."""
    return np.array([value_ms for value_ms in values_ms if value_ms is not None]) * 1e3
