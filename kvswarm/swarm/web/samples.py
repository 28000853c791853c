"""A run as time series for the eye: a sample a second, and percentiles of the last few seconds.

In:  the merged counts of the workers, and how busy the servers are.  Out: `Series`, as columns.
Not: figures that are kept.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from kvswarm.swarm.merging import Merged
from kvswarm.swarm.sketch import Sketch
from kvswarm.swarm.web.levels import Levels

SAMPLE_S: Final = 1.0
WINDOW_S: Final = 5.0
"""Percentiles and rates are of so long: in one second there may be a request or none."""
MOST_SAMPLES: Final = 1200
"""Then every other one is dropped: a day's run must fill neither memory nor screen."""
Sample = dict[str, float | None]


class Series:
    """The samples of one run."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self._window: deque[tuple[float, Merged]] = deque()
        self._next_s = 0.0
        self._every_s = SAMPLE_S

    def add(self, now_s: float, merged: Merged, levels: Levels) -> None:
        """Add what is known `now_s` after the start of the load."""
        before_s, before = self._window[0] if self._window else (0.0, None)
        self._window.append((now_s, merged))
        while len(self._window) > 1 and now_s - self._window[1][0] >= WINDOW_S:
            self._window.popleft()
        if now_s < self._next_s:
            return
        self._next_s = now_s + self._every_s - SAMPLE_S / 2
        per_s = 1.0 / max(SAMPLE_S / 2, now_s - before_s)
        tokens, done = merged.tokens, merged.total.ok + merged.failed
        known_tokens = before.tokens if before else 0
        known_done = before.total.ok + before.failed if before else 0
        self.samples.append({
            "t_s": round(now_s, 2),
            **_percentiles("ttft", merged, before),
            **_percentiles("itl", merged, before),
            "output_tokens_per_s": max(0, tokens - known_tokens) * per_s,
            "requests_per_s": max(0, done - known_done) * per_s,
            "in_flight": merged.total.in_flight,
            "running": levels.running,
            "waiting": levels.waiting,
            "kv_usage_share": levels.kv_usage_share,
        })  # fmt: skip
        if len(self.samples) > MOST_SAMPLES:
            self.samples = self.samples[::2]
            self._every_s *= 2

    def columns(self, after_s: float | None) -> dict[str, list[float | None]]:
        """The samples after a moment, or all, by name."""
        wanted = [
            sample for sample in self.samples if after_s is None or (sample["t_s"] or 0.0) > after_s
        ]
        return {name: [sample[name] for sample in wanted] for name in NAMES}


NAMES: Final = (
    "t_s", "ttft_p50_ms", "ttft_p99_ms", "itl_p50_ms", "itl_p99_ms", "output_tokens_per_s",
    "requests_per_s", "in_flight", "running", "waiting", "kv_usage_share",
)  # fmt: skip


def _percentiles(name: str, now: Merged, before: Merged | None) -> dict[str, float | None]:
    """p50 and p99 of what was added since `before`."""
    sketch: Sketch = now.sketches[name]
    if before is not None:
        sketch = sketch.since(before.sketches[name])
    return {
        f"{name}_p50_ms": sketch.quantile_ms(0.5),
        f"{name}_p99_ms": sketch.quantile_ms(0.99),
    }


def figures(merged: Merged, elapsed_s: float) -> dict[str, Any]:
    """Where a run stands: its totals, as the tab and the page show them. Missing is None."""
    total = merged.total
    ended = total.ok + merged.failed
    plain: dict[str, Any] = {
        "started": total.started,
        "ok": total.ok,
        "failed": merged.failed,
        "cancelled": total.cancelled,
        "in_flight": total.in_flight,
        "by_error": dict(sorted(total.by_error.items())),
        "output_tokens": merged.tokens,
        "good": total.good,
        "good_share": total.good / ended if ended else None,
        "goodput_rps": total.good / elapsed_s if elapsed_s > 0 else None,
        "valid_output_share": total.valid / total.checked if total.checked else None,
        "falling_behind": merged.falling_behind,
        "coalesced_share": merged.coalesced_share,
    }
    for name, sketch in merged.sketches.items():
        for share in ("50", "90", "99"):
            plain[f"{name}_p{share}_ms"] = sketch.quantile_ms(float(f"0.{share}"))
    return plain
