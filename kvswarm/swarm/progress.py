"""Where a run stands, for whoever started it: one JSON object per line on a pipe.

In:  the counts of the workers.  Out: a line twice a second, if anybody wants them.
`kvswarm run` gives the pipe and draws the live view; when it is gone, so is the reader, and the
run is stopped: load must not go on unseen. A reader that stands still (Ctrl-S, a stuck connection)
misses lines: writing never waits, because this process is the one that measures.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import time
from collections.abc import Sequence
from typing import Any, Final

from kvswarm.profiles.model import Load
from kvswarm.swarm.plan import Counts
from kvswarm.swarm.standing import merge

PROGRESS_FD_ENV: Final = "KVSWARM_PROGRESS_FD"
ARGV_ENV: Final = "KVSWARM_ARGV"
"""The command line that a person typed, where `kvswarm run` started this process."""
SIMULATOR_ENV: Final = "KVSWARM_SIMULATOR"
"""Set where the target is the embedded simulator."""
LAST_LINE_S: Final = 2.0
"""How long the last line may wait for a reader: it is the one that tells how the run ended."""
FIGURES: Final = ("ttft", "itl", "e2e", "read_lag")


class Progress:
    """Merges the counts and writes them."""

    def __init__(self, load: Load) -> None:
        fd = os.environ.get(PROGRESS_FD_ENV)
        self._fd = int(fd) if fd else None
        self._unsent = b""
        """What the pipe has not taken yet, perhaps the rest of a line: no other may come before."""
        if self._fd is not None:
            os.set_blocking(self._fd, False)
        self._load = load
        self._started_s = time.monotonic()
        self._before = (self._started_s, 0)

    def show(self, counts: Sequence[Counts], *, last: bool = False) -> None:
        """Write one line; none while the reader has left no room for the one before."""
        if self._fd is None:
            return
        line = json.dumps({**self._merged(counts), "last": last}).encode() + b"\n"
        if last or not self._unsent:
            self._unsent += line
        try:
            self._flush(self._fd)
            give_up_s = time.monotonic() + LAST_LINE_S
            while last and self._unsent and (left_s := give_up_s - time.monotonic()) > 0:
                select.select([], [self._fd], [], left_s)
                self._flush(self._fd)
        except OSError:
            self._fd = None
            os.kill(os.getpid(), signal.SIGTERM)

    def _flush(self, fd: int) -> None:
        with contextlib.suppress(BlockingIOError):
            self._unsent = self._unsent[os.write(fd, self._unsent) :]

    def _merged(self, counts: Sequence[Counts]) -> dict[str, Any]:
        now_s = time.monotonic()
        merged = merge(counts)
        total = merged.counts
        tokens = total.output_tokens + total.streaming_events
        before_s, before_tokens = self._before
        self._before = (now_s, tokens)
        line: dict[str, Any] = {
            "elapsed_s": now_s - self._started_s,
            "requests": self._load.requests,
            "duration_s": self._load.duration_s,
            "started": total.started,
            "ok": total.ok,
            "cancelled": total.cancelled,
            "in_flight": total.in_flight,
            "output_tokens": tokens,
            "output_tokens_per_s": max(0, tokens - before_tokens) / max(1e-9, now_s - before_s),
            "by_error": total.by_error,
            "coalesced_share": merged.coalesced_share,
        }
        for name in FIGURES:
            sketch = merged.sketches[name]
            line[f"{name}_p50_ms"] = sketch.quantile_ms(0.5)
            line[f"{name}_p99_ms"] = sketch.quantile_ms(0.99)
        return line
