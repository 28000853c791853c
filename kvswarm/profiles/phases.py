"""Which part of a run a request belongs to; only `measure` enters the figures."""

from __future__ import annotations

from kvswarm.profiles.model import Profile


def phase_of(profile: Profile, index: int, elapsed_s: float) -> str:
    """Tell `warmup`, `measure` or `cooldown` for request `index`.

    `elapsed_s` is when the request was intended, in seconds since the load began. Warm-up and
    cool-down count within the run's requests and duration; cool-down is the last of them.
    """
    warmup, cooldown, load = profile.warmup, profile.cooldown, profile.load
    if warmup.requests is not None and index < warmup.requests:
        return "warmup"
    if warmup.duration_s is not None and elapsed_s < warmup.duration_s:
        return "warmup"
    if cooldown.requests is not None and load.requests is not None:
        return "cooldown" if index >= load.requests - cooldown.requests else "measure"
    if cooldown.duration_s is not None and load.duration_s is not None:
        return "cooldown" if elapsed_s >= load.duration_s - cooldown.duration_s else "measure"
    return "measure"
