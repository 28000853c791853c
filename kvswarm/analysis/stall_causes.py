"""What else happened while a stream stood still: the servers' own words, and other prefills.

In:  server.parquet, and the times of all requests.
Out: `Conditions.held(cause, begin_s, end_s)`: for each stretch of time, whether it held then.

A server is asked once a second or so, so a page tells of its moment, and a counter of the time
since the page before. A stretch is held against the pages from the last that was read before it to
the first that was asked for after it. Which replica answered a request is not known: what holds at
any of them counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kvswarm.analysis.series import Replica, read_replicas
from kvswarm.analysis.server_names import KINDS, Pick
from kvswarm.analysis.server_told import all_names, kind_of, level_of
from kvswarm.rundir import RunDir, RunInfo

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

SERVER_CAUSES: Final = ("preemption", "queue", "kv_cache")
CAUSES: Final = (*SERVER_CAUSES, "prefill")
FULL_CACHE_SHARE: Final = 0.95


@dataclass(frozen=True, slots=True)
class Pages:
    """A condition at the pages of one replica; times in s, ascending."""

    asked_s: Floats
    read_s: Floats
    amount: Floats
    """How much of it up to each page: what a counter grew by, or on how many pages it held."""
    counter: bool

    def held(self, begin_s: Floats, end_s: Floats) -> Flags:
        """Whether there was any of it around each stretch."""
        last = len(self.read_s) - 1
        first_page = np.clip(np.searchsorted(self.read_s, begin_s, side="right") - 1, 0, last)
        last_page = np.clip(np.searchsorted(self.asked_s, end_s, side="left"), 0, last)
        # A counter's first page tells of the time before it, a gauge's of its own moment.
        before = np.concatenate(([0.0], self.amount))[first_page + self.counter]
        found: Flags = self.amount[last_page] > before
        return found


@dataclass(frozen=True, slots=True)
class Conditions:
    """All that may explain a stall; a cause that is not in `pages` is not told by any server."""

    pages: dict[str, list[Pages]]
    prefill_starts_s: Floats
    prefill_ends_s: Floats
    """Of long prompts; each ascending by itself."""

    def told(self, cause: str) -> bool:
        """Whether the run can tell of it."""
        return cause not in SERVER_CAUSES or bool(self.pages.get(cause))

    def held(self, cause: str, begin_s: Floats, end_s: Floats) -> Flags:
        """For each stretch whether the cause was there; False where nobody tells."""
        if cause == "prefill":
            # In the middle of the stretch: one that only touches its edge held nothing up.
            middle = (begin_s + end_s) / 2
            begun = np.searchsorted(self.prefill_starts_s, middle, side="right")
            over: Flags = begun > np.searchsorted(self.prefill_ends_s, middle, side="left")
            return over
        found = np.zeros(len(begin_s), dtype=bool)
        for pages in self.pages.get(cause, ()):
            found |= pages.held(begin_s, end_s)
        return found


def server_pages(run: RunDir, info: RunInfo, origin_ns: float) -> dict[str, list[Pages]]:
    """What the servers tell of each cause. Raises RunDirError where the table is damaged."""
    found: dict[str, list[Pages]] = {cause: [] for cause in SERVER_CAUSES}
    for replica in _servers(read_replicas(run, sorted(all_names())), info):
        clock = _Clock(replica, origin_ns)
        found["preemption"] += _preemptions(replica, clock)
        for cause, name, above in (
            ("queue", "waiting", 0.0), ("kv_cache", "kv_usage_share", FULL_CACHE_SHARE),
        ):  # fmt: skip
            level = level_of(replica, name, replica.whole)
            if level is not None:
                amount = np.cumsum(level.values > above).astype(np.float64)
                found[cause].append(clock.pages(level.times_ns, amount, counter=False))
    return found


def _servers(replicas: Sequence[Replica], info: RunInfo) -> list[Replica]:
    """Those that count: where --metrics-url names the replicas, no page of what is before them."""
    servers = [each for each in replicas if kind_of(each) is not None and not each.several]
    asked = {source.name for source in info.metrics if not source.own}
    return [each for each in servers if each.name in asked] or servers


class _Clock:
    """Moments of a replica's pages in seconds since the origin."""

    def __init__(self, replica: Replica, origin_ns: float) -> None:
        self._origin_ns = np.int64(origin_ns)
        self._read_ns, self._asked_ns = replica.times_ns, replica.asked_ns

    def pages(self, times_ns: NDArray[np.int64], amount: Floats, *, counter: bool) -> Pages:
        """A condition at the pages that were read at these times."""
        asked_ns = self._asked_ns[np.searchsorted(self._read_ns, times_ns)]
        return Pages(
            (asked_ns - self._origin_ns) / 1e9,
            (times_ns - self._origin_ns) / 1e9,
            amount,
            counter,
        )


def _preemptions(replica: Replica, clock: _Clock) -> list[Pages]:
    kind = kind_of(replica)
    names = KINDS[kind].counters.get("preemptions", ()) if kind is not None else ()
    found = []
    for series in (each for name in names for each in replica.pick(Pick(name))):
        steps = np.diff(series.values)
        # A counter that fell was started anew: all that it has is new.
        grown = np.cumsum(np.where(steps < 0, series.values[1:], steps))
        amount = np.concatenate(([0.0], grown))
        found.append(clock.pages(series.times_ns, amount, counter=True))
    return found
