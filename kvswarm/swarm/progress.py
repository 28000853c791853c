"""Where a run stands, for whoever started it: one JSON object per line on a pipe.

In:  the counts of the workers.  Out: a line twice a second, if anybody wants them.
`kvswarm run` gives the pipe and draws the live view; when it is gone, so is the reader, and the
run is stopped: load must not go on unseen.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Sequence
from typing import Any, Final

from kvswarm.profiles.model import Load
from kvswarm.swarm.plan import Counts
from kvswarm.swarm.sketch import Sketch

PROGRESS_FD_ENV: Final = "KVSWARM_PROGRESS_FD"
FIGURES: Final = ("ttft", "itl", "e2e", "read_lag")


class Progress:
    """Merges the counts and writes them."""

    def __init__(self, load: Load) -> None:
        fd = os.environ.get(PROGRESS_FD_ENV)
        self._fd = int(fd) if fd else None
        self._load = load
        self._started_s = time.monotonic()
        self._before = (self._started_s, 0)

    def show(self, counts: Sequence[Counts], *, last: bool = False) -> None:
        """Write one line."""
        if self._fd is None:
            return
        line = json.dumps({**self._merged(counts), "last": last}) + "\n"
        try:
            os.write(self._fd, line.encode())
        except OSError:
            self._fd = None
            os.kill(os.getpid(), signal.SIGTERM)

    def _merged(self, counts: Sequence[Counts]) -> dict[str, Any]:
        now_s = time.monotonic()
        tokens = sum(count.output_tokens for count in counts)
        before_s, before_tokens = self._before
        self._before = (now_s, tokens)
        by_error: dict[str, int] = {}
        for count in counts:
            for kind, number in count.by_error.items():
                by_error[kind] = by_error.get(kind, 0) + number
        token_events = sum(count.token_events for count in counts)
        coalesced = sum(count.coalesced for count in counts)
        line: dict[str, Any] = {
            "elapsed_s": now_s - self._started_s,
            "requests": self._load.requests,
            "duration_s": self._load.duration_s,
            "started": sum(count.started for count in counts),
            "ok": sum(count.ok for count in counts),
            "cancelled": sum(count.cancelled for count in counts),
            "in_flight": sum(count.in_flight for count in counts),
            "output_tokens": tokens,
            "output_tokens_per_s": (tokens - before_tokens) / max(1e-9, now_s - before_s),
            "by_error": by_error,
            "coalesced_share": coalesced / token_events if token_events else 0.0,
        }
        for name in FIGURES:
            merged = Sketch()
            for count in counts:
                if packed := getattr(count, name):
                    merged.merge(Sketch.from_bytes(packed))
            line[f"{name}_p50_ms"] = merged.quantile_ms(0.5)
            line[f"{name}_p99_ms"] = merged.quantile_ms(0.99)
        return line
