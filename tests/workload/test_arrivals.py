"""The schedule of open loops: exact statistics, exact shards, exact ends; users of closed loops."""

from __future__ import annotations

from itertools import chain, islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from kvswarm.profiles.model import Load, Stage
from kvswarm.workload.arrivals import HEAVY_SHAPE, arrivals, users_at

RAMP = (Stage(duration_s=0.0, rate_rps=50.0), Stage(duration_s=20.0, rate_rps=250.0, linear=True))
STAGES = (
    Stage(duration_s=5.0, rate_rps=100.0, linear=True),
    Stage(duration_s=3.0, rate_rps=0.0),
    Stage(duration_s=4.0, rate_rps=300.0),
    Stage(duration_s=5.0, rate_rps=0.0, linear=True),
)

LOADS = {
    "constant": Load(pattern="constant", open_loop=True, rate_rps=40.0, requests=9000),
    "poisson": Load(pattern="poisson", open_loop=True, rate_rps=40.0, requests=9000),
    "gamma": Load(pattern="gamma", open_loop=True, rate_rps=40.0, burstiness=0.3, requests=9000),
    "heavy": Load(pattern="heavy", open_loop=True, rate_rps=40.0, requests=9000),
    "bursty": Load(
        pattern="bursty",
        open_loop=True,
        rate_rps=90.0,
        on_s=2.0,
        off_s=3.0,
        off_rate_rps=4.0,
        requests=9000,
    ),
    "silent": Load(
        pattern="bursty", open_loop=True, rate_rps=90.0, on_s=0.5, off_s=3.0, requests=9000
    ),
    "ramp": Load(pattern="ramp", open_loop=True, stages=RAMP, duration_s=30.0),
    "stages": Load(pattern="stages", open_loop=True, stages=STAGES, duration_s=17.0),
}


def seconds(load: Load, seed: int = 1) -> NDArray[np.float64]:
    """Arrival times of a whole schedule, in seconds."""
    return np.array([offset_ns for _, offset_ns in arrivals(load, seed)]) / 1e9


def cumulated(load: Load, times_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """The expected number of arrivals before each time: a slow oracle, by small steps."""
    grid = np.linspace(0.0, float(times_s[-1]) + 1.0, 400_001)
    rates = np.array([rate_at(load, t) for t in grid[:-1] + np.diff(grid) / 2])
    return np.interp(times_s, grid, np.concatenate(([0.0], np.cumsum(rates * np.diff(grid)))))


def rate_at(load: Load, elapsed_s: float) -> float:
    """The rate that the pattern asks for at one moment."""
    if load.pattern == "bursty":
        assert load.on_s is not None
        assert load.off_s is not None
        on = elapsed_s % (load.on_s + load.off_s) < load.on_s
        return float(load.rate_rps or 0) if on else load.off_rate_rps
    before = 0.0
    for stage in load.stages:
        after = stage.rate_rps or 0.0
        if elapsed_s < stage.duration_s:
            share = elapsed_s / stage.duration_s if stage.linear else 1.0
            return before + (after - before) * share
        elapsed_s, before = elapsed_s - stage.duration_s, after
    return before


@pytest.mark.parametrize("name", LOADS)
@given(shards=st.integers(1, 9), seed=st.integers(0, 2**63))
@settings(max_examples=5, deadline=None)
def test_shards_merge_into_the_one_schedule(name: str, shards: int, seed: int) -> None:
    """Workers that each took their own dice would not make the arrivals that were asked for."""
    load = LOADS[name]
    whole = list(arrivals(load, seed))
    shares = [list(arrivals(load, seed, shard, shards)) for shard in range(shards)]
    assert sorted(chain.from_iterable(shares)) == whole
    assert all(index % shards == shard for shard, own in enumerate(shares) for index, _ in own)
    assert [index for index, _ in whole] == list(range(len(whole)))


@pytest.mark.parametrize("name", LOADS)
def test_time_never_goes_back_and_seeds_differ(name: str) -> None:
    """A schedule is walked in order, and another seed is another run."""
    times = seconds(LOADS[name])
    assert np.all(np.diff(times) >= 0)
    assert times[0] >= 0
    if name != "constant":
        assert not np.array_equal(times[:50], seconds(LOADS[name], seed=2)[:50])


def test_a_constant_rate_has_constant_gaps() -> None:
    """Some tools draw exponential gaps and call them constant."""
    np.testing.assert_allclose(seconds(LOADS["constant"]), np.arange(9000) / 40.0, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "distribution"),
    [
        ("poisson", stats.expon(scale=1 / 40)),
        ("gamma", stats.gamma(0.3, scale=1 / (40 * 0.3))),
        ("heavy", stats.lomax(HEAVY_SHAPE, scale=(HEAVY_SHAPE - 1) / 40)),
    ],
)
def test_gaps_follow_the_distribution_that_was_asked_for(name: str, distribution: object) -> None:
    """Kolmogorov and Smirnov's test over 9,000 gaps; each distribution has the mean 1 / rate."""
    gaps = np.diff(seconds(LOADS[name]), prepend=0.0)
    assert distribution.mean() == pytest.approx(1 / 40)  # type: ignore[attr-defined]
    assert stats.kstest(gaps, distribution.cdf).pvalue > 0.01  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["bursty", "silent", "ramp", "stages"])
def test_a_changing_rate_is_followed_exactly(name: str) -> None:
    """In units of the cumulated rate, the arrivals must be a Poisson process of rate 1."""
    load = LOADS[name]
    times = seconds(load)
    gaps = np.diff(cumulated(load, times), prepend=0.0)
    assert stats.kstest(gaps, stats.expon().cdf).pvalue > 0.01
    assert abs(np.corrcoef(gaps[1:], gaps[:-1])[0, 1]) < 4 / np.sqrt(len(gaps))


def test_quiet_means_quiet() -> None:
    """With off_rate_rps 0 nothing arrives between bursts; nor in a stage of 0."""
    assert np.all(seconds(LOADS["silent"]) % 3.5 <= 0.5)
    times = seconds(LOADS["stages"])
    assert not np.any((times > 5.0) & (times < 8.0))


@pytest.mark.parametrize(
    ("requests", "duration_s", "count"),
    [(100, None, 100), (None, 2.0, 80), (50, 2.0, 50), (100, 2.0, 80), (None, 1e-9, 1)],
)
def test_the_first_of_both_ends_ends_the_schedule(
    requests: int | None, duration_s: float | None, count: int
) -> None:
    """An arrival at the very end of the duration is outside."""
    load = Load(
        pattern="constant", open_loop=True, rate_rps=40.0, requests=requests, duration_s=duration_s
    )
    assert len(list(arrivals(load, 0))) == count
    assert sum(len(list(arrivals(load, 0, shard, 3))) for shard in range(3)) == count


def test_the_last_level_holds_where_requests_are_the_end() -> None:
    """A run by requests goes on at the rate that the stages reached."""
    load = Load(
        pattern="stages",
        open_loop=True,
        stages=(Stage(duration_s=1.0, rate_rps=200.0),),
        requests=6000,
    )
    times = seconds(load)
    assert len(times) == 6000
    assert times[-1] == pytest.approx(30.0, rel=0.06)


def test_a_last_level_of_0_sends_nothing_more() -> None:
    """The schedule ends there rather than in a time without end."""
    stages = (Stage(duration_s=1.0, rate_rps=200.0), Stage(duration_s=1.0, rate_rps=0.0))
    load = Load(pattern="stages", open_loop=True, stages=stages, requests=6000)
    times = seconds(load)
    assert 100 < len(times) < 300
    assert times[-1] <= 1.0


def test_a_schedule_without_a_known_end_is_made_as_it_is_asked_for() -> None:
    """Long runs must not hold all their arrivals in memory."""
    load = Load(pattern="poisson", open_loop=True, rate_rps=1e6, duration_s=1e9)
    assert len(list(islice(arrivals(load, 0), 10_000))) == 10_000


def test_loops_are_not_mistaken_for_one_another() -> None:
    """Whoever asks the wrong one has a defect to mend."""
    closed = Load(pattern="steady", open_loop=False, concurrency=3, requests=1)
    with pytest.raises(ValueError, match="no arrivals"):
        next(arrivals(closed, 0))
    with pytest.raises(ValueError, match="no users"):
        users_at(LOADS["poisson"], 0.0)
    with pytest.raises(ValueError, match="shard 2 of 2"):
        next(arrivals(LOADS["poisson"], 0, 2, 2))


@pytest.mark.parametrize(
    ("elapsed_s", "users"),
    [
        (-0.5, 0),
        (0.0, 0),
        (2.5, 5),
        (4.99, 10),
        (5.0, 3),
        (7.99, 3),
        (8.0, 0),
        (12.0, 0),
        (12.01, 0),
        (14.0, 4),
        (16.0, 8),
        (17.0, 8),
        (19.99, 8),
        (20.0, None),
        (99.0, None),
    ],
)
def test_users_follow_the_stages(elapsed_s: float, users: int | None) -> None:
    """0 to 10 in 5 s, 3 for 3 s, none for 4 s, 0 to 8 in 4 s, then 8 until the end at 20 s."""
    load = Load(
        pattern="stages",
        open_loop=False,
        duration_s=20.0,
        stages=(
            Stage(duration_s=5.0, concurrency=10, linear=True),
            Stage(duration_s=3.0, concurrency=3),
            Stage(duration_s=4.0, concurrency=0),
            Stage(duration_s=4.0, concurrency=8, linear=True),
        ),
    )
    assert users_at(load, elapsed_s) == users


def test_steady_users_stay_until_the_duration_is_over() -> None:
    """Without a duration they stay for ever: the quota of requests ends the load."""
    load = Load(pattern="steady", open_loop=False, concurrency=3, requests=1)
    assert users_at(load, 1e9) == 3
    timed = Load(pattern="steady", open_loop=False, concurrency=3, duration_s=5.0)
    assert [users_at(timed, t) for t in (0.0, 4.9, 5.0)] == [3, 3, None]
