"""The curve of a sweep: throughput and latency against load, its knee, and where it is saturated.

In:  the summaries of runs, by load.  Out: `Curve`, as plain data.

- **Power** is throughput by response time, in requests/s by seconds (Kleinrock, "Power and
  deterministic rules of thumb for probabilistic problems in computer communications", ICC 1979).
  The **knee** is the load at which it is greatest: below it throughput is to be had for little
  latency, beyond it latency grows faster than throughput.
- The curve is **saturated** from the first rate on at which requests queued up (`saturation.py`),
  or from the first number of users on of whom those that were added brought less than a tenth of
  the throughput that as many before them had: (dX / X) / (dN / N) < 0.1.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

MARGINAL_SHARE: Final = 0.1
LEAST_POINTS: Final = 3
"""Of two loads one is always the better; that is no knee."""

Kind = Literal["rate_rps", "concurrency"]
KINDS: Final[tuple[Kind, ...]] = ("rate_rps", "concurrency")


class Point(msgspec.Struct, kw_only=True):
    """One run of a curve; None: it has no such figure."""

    load: float
    requests_per_s: float
    output_tokens_per_s: float
    ttft_p50_ms: float | None
    ttft_p99_ms: float | None
    itl_p50_ms: float | None
    itl_p99_ms: float | None
    e2e_mean_ms: float | None
    power: float | None
    """Requests/s by mean E2E in s."""
    queued: bool
    """Whether requests in flight grew through the run, or arrivals were dropped."""


class Curve(msgspec.Struct, kw_only=True):
    """Points by ascending load, of runs that differ in it alone."""

    label: str
    """The other keys' values, where several keys were swept."""
    kind: Kind
    points: list[Point]
    knee: float | None
    """The load of the greatest power; None where it is the last or there are too few points."""
    saturated_from: float | None
    """The first load that was more than the server could do; None: none was."""


def point_of(load: float, summary: Mapping[str, Any], *, queued: bool) -> Point:
    """Take a point out of a run's summary; `queued` is what `saturation.py` says of the run."""
    throughput = summary["throughput"]
    e2e_ms = summary["e2e_ms"]["mean"]
    rate = throughput["requests_per_s"]
    return Point(
        load=load,
        requests_per_s=rate,
        output_tokens_per_s=throughput["output_tokens_per_s"],
        ttft_p50_ms=summary["ttft_ms"]["p50"],
        ttft_p99_ms=summary["ttft_ms"]["p99"],
        itl_p50_ms=summary["itl_ms"]["p50"],
        itl_p99_ms=summary["itl_ms"]["p99"],
        e2e_mean_ms=e2e_ms,
        power=rate / (e2e_ms / 1e3) if e2e_ms else None,
        queued=queued,
    )


def curve_of(label: str, kind: Kind, points: Sequence[Point]) -> Curve:
    """Make the curve of some runs, in whatever order they were made."""
    ordered = sorted(points, key=lambda point: point.load)
    return Curve(
        label=label,
        kind=kind,
        points=ordered,
        knee=_knee(ordered),
        saturated_from=_saturated_from(kind, ordered),
    )


def _knee(points: Sequence[Point]) -> float | None:
    powers = [(point.power, point.load) for point in points if point.power is not None]
    if len(powers) < LEAST_POINTS:
        return None
    _, load = max(powers, key=lambda each: each[0])
    # At the last load power may still be rising: the knee is there or beyond, and not seen.
    return None if load == powers[-1][1] else load


def _saturated_from(kind: Kind, points: Sequence[Point]) -> float | None:
    if kind == "rate_rps":
        return next((point.load for point in points if point.queued), None)
    for before, point in itertools.pairwise(points):
        if before.requests_per_s <= 0.0:
            continue
        gained = point.requests_per_s / before.requests_per_s - 1.0
        if gained < MARGINAL_SHARE * (point.load / before.load - 1.0):
            return point.load
    return None
