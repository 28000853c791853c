"""How long a load will be, as far as its pattern tells: for checks, never for figures."""

from __future__ import annotations

from kvswarm.profiles.model import Load


def mean_rate_rps(load: Load) -> float | None:
    """Arrivals per second over a long time; None where users or stages decide."""
    if load.rate_rps is None:
        return None
    if load.pattern == "bursty" and load.on_s is not None and load.off_s is not None:
        arrivals = load.rate_rps * load.on_s + load.off_rate_rps * load.off_s
        return arrivals / (load.on_s + load.off_s)
    return load.rate_rps


def expected_duration_s(load: Load) -> float | None:
    """Seconds that the load takes at most, by its end or its rate; None: cannot be told."""
    rate_rps = mean_rate_rps(load)
    by_requests = None
    if load.requests is not None and rate_rps:
        by_requests = load.requests / rate_rps
    return _least(load.duration_s, by_requests)


def expected_requests(load: Load) -> float | None:
    """Requests of the load at most, by its end or its rate; None: cannot be told."""
    rate_rps = mean_rate_rps(load)
    by_time = None
    if load.duration_s is not None and rate_rps:
        by_time = load.duration_s * rate_rps
    return _least(load.requests, by_time)


def _least(*values: float | None) -> float | None:
    known = [value for value in values if value is not None]
    return min(known) if known else None
