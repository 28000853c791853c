"""Where a worker stands, for the live view: counts and sketches of what it has recorded.

In:  records as they are made.  Out: the message that the master merges over workers.
Not: figures that are kept: those come from the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kvswarm.records import Record
from kvswarm.swarm.plan import Counts
from kvswarm.swarm.sketch import Sketch


class Standing:
    """Totals since the start of the run."""

    def __init__(self) -> None:
        self.counts = Counts()
        self._sketches = {name: Sketch() for name in ("ttft", "itl", "e2e", "read_lag")}

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
            sketches["itl"].add(np.concatenate([record.itl_us for record in passed]))
            sketches["read_lag"].add(np.concatenate([record.read_lag_us for record in passed]))

    def packed(self) -> dict[str, Any]:
        """Plain data for a message."""
        plain = {name: getattr(self.counts, name) for name in Counts.__struct_fields__}
        plain["by_error"] = dict(self.counts.by_error)
        plain.update({name: sketch.to_bytes() for name, sketch in self._sketches.items()})
        return plain
