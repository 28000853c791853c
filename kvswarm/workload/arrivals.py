"""When requests start: arrival times of open loops, users of closed loops. Reads no clock.

In:  a `Load` and a seed; for users, the time since the load began.
Out: `arrivals`: one global schedule, from which each shard takes its turns; `users_at`.

A Poisson process whose rate changes with time is made by time-rescaling: arrivals of rate 1 are
moved to where the cumulated rate reaches them, so the statistics are exact, not stepped.
Source: Daley and Vere-Jones, An Introduction to the Theory of Point Processes, 7.4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kvswarm.profiles.model import Load, Stage
from kvswarm.workload.lengths import RandomStream, generator

Floats = NDArray[np.float64]

CHUNK: Final = 4096
NS_PER_S: Final = 1_000_000_000
HEAVY_SHAPE: Final = 2.5
"""Shape of the Pareto (type II, Lomax) gaps of `heavy`: finite variance, a long tail. The
coefficient of variation is sqrt(5), against 1 for Poisson."""


def arrivals(load: Load, seed: int, shard: int = 0, shards: int = 1) -> Iterator[tuple[int, int]]:
    """Yield (index, offset in ns since the load began) of a shard's arrivals, in order.

    Shard k of n has the arrivals k, k + n, k + 2n, ... of the one schedule that the seed gives.
    It ends at `load.requests` or before `load.duration_s`, whichever is first. Raises ValueError
    for a closed loop.
    """
    if not load.open_loop:
        raise ValueError(f"pattern {load.pattern} in users has no arrivals; see users_at")
    if not 0 <= shard < shards:
        raise ValueError(f"shard {shard} of {shards} does not exist")
    end_ns = np.inf if load.duration_s is None else load.duration_s * NS_PER_S
    end_index = load.requests
    first_index = 0
    for offsets_s in _schedule(load, seed):
        offsets_ns = offsets_s * NS_PER_S
        within = int(np.searchsorted(offsets_ns, end_ns))
        if end_index is not None:
            within = min(within, end_index - first_index)
        start = (shard - first_index) % shards
        chosen = np.rint(offsets_ns[start:within:shards]).astype(np.int64).tolist()
        yield from zip(
            range(first_index + start, first_index + within, shards), chosen, strict=True
        )
        if within < len(offsets_ns):
            return
        first_index += len(offsets_ns)


def users_at(load: Load, elapsed_s: float) -> int | None:
    """Tell how many users a closed loop wants at a time; None once its duration is over.

    The end by `load.requests` is not seen here. Raises ValueError for an open loop.
    """
    if load.open_loop:
        raise ValueError(f"pattern {load.pattern} in requests per second has no users")
    if load.duration_s is not None and elapsed_s >= load.duration_s:
        return None
    if not load.stages:
        return load.concurrency
    start_s, before = 0.0, 0.0
    for stage in load.stages:
        after = _level(stage)
        if elapsed_s < start_s + stage.duration_s:
            if not stage.linear:
                return int(after)
            share = max(0.0, elapsed_s - start_s) / stage.duration_s
            return int(before + (after - before) * share + 0.5)
        start_s, before = start_s + stage.duration_s, after
    return int(before)


def _schedule(load: Load, seed: int) -> Iterator[Floats]:
    """Yield chunks of the arrival times of the whole run, in seconds, without end."""
    rng = generator(seed, RandomStream.ARRIVALS)
    if load.pattern == "constant":
        rate_rps = _rate(load)
        first = 0
        while True:
            yield np.arange(first, first + CHUNK, dtype=np.float64) / rate_rps
            first += CHUNK
    draw_gaps, place = _gaps_and_place(load)
    elapsed = 0.0
    while True:
        sums = elapsed + np.cumsum(draw_gaps(rng))
        elapsed = float(sums[-1])
        yield place(sums)


def _gaps_and_place(
    load: Load,
) -> tuple[Callable[[np.random.Generator], Floats], Callable[[Floats], Floats]]:
    """Choose how gaps are drawn, and how their sums become seconds."""
    if load.pattern in {"ramp", "stages"}:
        return _unit_gaps, _Stages(load.stages).times
    rate_rps = _rate(load)
    if load.pattern == "bursty":
        return _unit_gaps, lambda sums: _on_off_times(sums, load)
    if load.pattern == "gamma":
        shape = load.burstiness
        return lambda rng: rng.gamma(shape, 1 / shape, CHUNK), lambda sums: sums / rate_rps
    if load.pattern == "heavy":
        mean = 1 / (HEAVY_SHAPE - 1)
        return lambda rng: rng.pareto(HEAVY_SHAPE, CHUNK) / mean, lambda sums: sums / rate_rps
    return _unit_gaps, lambda sums: sums / rate_rps


def _rate(load: Load) -> float:
    if load.rate_rps is None:
        raise ValueError(f"pattern {load.pattern} needs rate_rps")
    return load.rate_rps


def _unit_gaps(rng: np.random.Generator) -> Floats:
    return rng.exponential(1.0, CHUNK)


def _on_off_times(sums: Floats, load: Load) -> Floats:
    """Move arrivals of rate 1 into bursts and quiet times; the load begins with a burst."""
    rate_rps, on_s, off_s = _rate(load), load.on_s, load.off_s
    if on_s is None or off_s is None:
        raise ValueError("pattern bursty needs on_s and off_s")
    on_arrivals = rate_rps * on_s
    cycles, rest = np.divmod(sums, on_arrivals + load.off_rate_rps * off_s)
    within = rest / rate_rps
    if load.off_rate_rps > 0:
        within = np.where(
            rest <= on_arrivals, within, on_s + (rest - on_arrivals) / load.off_rate_rps
        )
    times: Floats = cycles * (on_s + off_s) + within
    return times


def _level(stage: Stage) -> float:
    return float((stage.rate_rps if stage.concurrency is None else stage.concurrency) or 0)


class _Stages:
    """The cumulated rate of stages, inverted: quadratic within a linear stage."""

    def __init__(self, stages: tuple[Stage, ...]) -> None:
        after = np.array([_level(stage) for stage in stages])
        before = np.concatenate(([0.0], after[:-1]))
        linear = np.array([stage.linear for stage in stages])
        seconds = np.array([stage.duration_s for stage in stages])
        first = np.where(linear, before, after)
        rises = np.divide(after - first, seconds, out=np.zeros_like(after), where=seconds > 0)
        # One more stage, without end: the last level holds.
        self._first_rps: Floats = np.append(first, after[-1])
        self._rise_rps2: Floats = np.append(rises, 0.0)
        self._start_s: Floats = np.concatenate(([0.0], np.cumsum(seconds)))
        self._before: Floats = np.concatenate(([0.0], np.cumsum((first + after) / 2 * seconds)))

    def times(self, sums: Floats) -> Floats:
        """Tell when the cumulated rate reaches each of `sums`; inf where it never does."""
        stage = np.searchsorted(self._before, sums, side="right") - 1
        rest = sums - self._before[stage]
        first = self._first_rps[stage]
        # The root of first * t + rise / 2 * t**2 = rest that is stable for rises of either sign.
        under_root = np.maximum(first**2 + 2 * self._rise_rps2[stage] * rest, 0.0)
        divisor = first + np.sqrt(under_root)
        within = np.divide(2 * rest, divisor, out=np.full_like(rest, np.inf), where=divisor > 0)
        times: Floats = self._start_s[stage] + within
        return times
