"""When a service grew, and when it met its SLOs again. Pure functions of what was seen.

In:  numbers of replicas over time, moments at which the load rises, requests and whether they met.
Out: `ScaleUp`s; `recovered_ns`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from kvswarm.analysis.pods import POD_STEPS, Pod, Told
from kvswarm.analysis.rows import Flags, Floats, Integers
from kvswarm.analysis.steps import Steps
from kvswarm.profiles.model import Load

SLO_WINDOW_NS: Final = 10_000_000_000
SLO_WINDOW_REQUESTS: Final = 20
"""A window has so many requests at the least, unless the load rises again before that."""
SLO_LEAST_REQUESTS: Final = 5
"""Fewer say nothing of an SLO."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleUp:
    """From the moment at which more replicas were wanted than before, until they are ready."""

    began_ns: int
    ended_ns: int | None
    """All were ready, or no more were wanted than there are; None: it goes on."""
    all_ready: bool
    """Whether it ended with all ready."""
    from_replicas: int
    """Ready when it began."""
    to_replicas: int
    """Most that were wanted in it."""
    reached_ns: dict[str, int]
    """When the first of its pods reached each of `POD_STEPS`, as far as one did."""

    def holds(self, times_ns: Floats, rise_ns: int) -> Flags:
        """Which moments lie in it, counted from the rise of the load that it answers."""
        ended_ns = np.inf if self.ended_ns is None else self.ended_ns
        within: Flags = (times_ns >= rise_ns) & (times_ns < ended_ns)
        return within


def scale_ups(told: Told) -> list[ScaleUp]:
    """Find them: by the number wanted, or where that is not told, by the pods that exist."""
    wanted = told.there if told.wanted is None else told.wanted
    ready = told.ready
    found: list[ScaleUp] = []
    began: tuple[int, int, int] | None = None  # when, ready then, most wanted so far
    wanted_before = 0
    for moment in np.union1d(wanted.times_ns, ready.times_ns).tolist():
        now, ready_now = wanted.at(moment), ready.at(moment)
        if began is None:
            if now > wanted_before and now > ready_now:
                began = (moment, ready_now, now)
        else:
            began = (began[0], began[1], max(began[2], now))
            if ready_now >= now:
                found.append(_scale_up(told.pods, began, moment, all_ready=now >= wanted_before))
                began = None
        wanted_before = now
    if began is not None:
        found.append(_scale_up(told.pods, began, None, all_ready=False))
    return found


def _scale_up(
    pods: Sequence[Pod], began: tuple[int, int, int], ended_ns: int | None, *, all_ready: bool
) -> ScaleUp:
    began_ns, from_replicas, to_replicas = began
    reached: dict[str, int] = {}
    for pod in pods:
        gone_before = pod.deleted_ns is not None and pod.deleted_ns <= began_ns
        if gone_before or pod.ready.at(began_ns):
            continue
        for step in POD_STEPS:
            moment = pod.reached.get(step)
            if moment is not None and (ended_ns is None or moment.ns <= ended_ns):
                reached[step] = min(moment.ns, reached.get(step, moment.ns))
    return ScaleUp(
        began_ns=began_ns,
        ended_ns=ended_ns,
        all_ready=all_ready,
        from_replicas=from_replicas,
        to_replicas=to_replicas,
        reached_ns=reached,
    )


def first_ready_ns(ready: Steps, since_ns: int) -> int | None:
    """When any replica was ready, where none was at `since_ns`; None: one was, or none came."""
    if ready.at(since_ns):
        return None
    later = ready.times_ns[(ready.times_ns > since_ns) & (ready.values > 0)]
    return int(later[0]) if len(later) else None


def load_rises_s(load: Load, until_s: float) -> list[float]:
    """When the load rises after its begin, in s since it began: each burst, each higher stage."""
    if load.pattern == "bursty" and load.on_s is not None and load.off_s is not None:
        cycle_s = load.on_s + load.off_s
        return [cycle_s * k for k in range(1, int(np.ceil(until_s / cycle_s)))]
    rises, start_s, before = [], 0.0, 0.0
    for stage in load.stages:
        level = float((stage.rate_rps if stage.concurrency is None else stage.concurrency) or 0)
        if level > before and 0 < start_s < until_s:
            rises.append(start_s)
        start_s, before = start_s + stage.duration_s, level
    return rises


def recovered_ns(
    intended_ns: Floats, met: Flags, span_ns: tuple[float, float], target_share: float
) -> int | None:
    """From when on the SLOs were met again; None: not within the span.

    `intended_ns`: ascending, shape (requests,), as `met`. It is the first request in the span that
    met them and from which on, over a window of SLO_WINDOW_NS and SLO_WINDOW_REQUESTS, at least
    `target_share` did. The window ends with the span, and has SLO_LEAST_REQUESTS at least.
    """
    inside = (intended_ns >= span_ns[0]) & (intended_ns < span_ns[1])
    times, good = intended_ns[inside], met[inside]
    count = len(times)
    starts = np.arange(count)
    by_time = np.searchsorted(times, times + SLO_WINDOW_NS, side="left")
    ends: Integers = np.minimum(np.maximum(by_time, starts + SLO_WINDOW_REQUESTS), count)
    sums = np.concatenate(([0], np.cumsum(good)))
    sizes = ends - starts
    reached = sums[ends] - sums[starts] >= target_share * sizes - 1e-9
    found = np.flatnonzero(good & reached & (sizes >= SLO_LEAST_REQUESTS))
    return int(times[found[0]]) if len(found) else None
