"""Whether a run's load was more than the server could do, from its requests alone."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvswarm.analysis.saturation import growth_of, saturation_of
from kvswarm.analysis.table import finish_table
from kvswarm.analysis.targets import Target, count_targets, read_targets
from kvswarm.errors import UsageError
from kvswarm.records import Record
from kvswarm.rundir import RunDir, RunInfo

sys.path.insert(0, str(Path(__file__).parent))
from rundirs import START_NS, failed, good, open_profile, run_info, unsent, worker, write_run

S = 1e9


def written(path: Path, records: Sequence[Record], info: RunInfo | None = None) -> RunDir:
    """A run directory with its table."""
    run = write_run(path, [records], info)
    finish_table(run)
    return run


def served(arrivals_s: np.ndarray, servers: int, service_s: np.ndarray) -> np.ndarray:
    """When each request ends at so many servers, first come first served."""
    free = np.zeros(servers)
    ends = np.empty(len(arrivals_s))
    for place, arrival in enumerate(arrivals_s):
        server = int(free.argmin())
        ends[place] = free[server] = max(arrival, free[server]) + service_s[place]
    return ends


def test_the_number_in_flight_is_the_mean_over_time() -> None:
    """Ten arrivals a second of 200 ms each are two in flight, early and late."""
    starts = np.arange(0.0, 10.0, 0.1)
    found = growth_of(starts * S, (starts + 0.2) * S)
    assert found is not None
    assert found.early == pytest.approx(2.0, abs=0.02)
    assert found.late == pytest.approx(2.0, abs=0.1)
    assert found.arrived == pytest.approx(50, abs=1)
    assert not found.saturated


@given(seed=st.integers(0, 2**32), load=st.floats(0.2, 0.9))
@settings(max_examples=50)
def test_a_server_that_keeps_up_with_random_arrivals_is_not_called_saturated(
    seed: int, load: float
) -> None:
    """Eight at a time, 200 ms each: up to nine tenths of what it can do."""
    generator = np.random.default_rng(seed)
    arrivals = np.cumsum(generator.exponential(1 / (40.0 * load), 600))
    ends = served(arrivals, 8, np.full(600, 0.2))
    found = growth_of(arrivals * S, ends * S)
    assert found is not None
    assert not found.saturated


@given(seed=st.integers(0, 2**32), load=st.floats(1.6, 6.0))
@settings(max_examples=50)
def test_a_server_that_falls_behind_is_called_saturated(seed: int, load: float) -> None:
    """The same, asked for 1.6 times as much or more."""
    generator = np.random.default_rng(seed)
    arrivals = np.cumsum(generator.exponential(1 / (40.0 * load), 600))
    ends = served(arrivals, 8, np.full(600, 0.2))
    found = growth_of(arrivals * S, ends * S)
    assert found is not None
    assert found.saturated


def test_long_answers_in_a_short_run_are_not_taken_for_a_queue() -> None:
    """All runs have more in flight in the end than in the beginning then; nobody waited."""
    starts = np.arange(0.0, 10.0, 0.1)
    found = growth_of(starts * S, (starts + 9.0) * S)
    assert found is not None
    assert found.late - found.early > 20
    assert not found.saturated
    assert growth_of(starts[:10] * S, (starts[:10] + 0.1) * S) is None
    assert growth_of(np.zeros(30), np.ones(30) * S) is None


def test_a_run_is_saturated_where_its_queue_grew_or_arrivals_were_dropped(tmp_path: Path) -> None:
    """In words with figures; a generator that falls behind is no queue in the server."""
    queued = [good(n, at_ms=n * 10.0, ttft_ms=20.0 + n * 8.0) for n in range(400)]
    steady = [good(n, at_ms=n * 10.0, ttft_ms=20.0) for n in range(400)]
    grown = written(tmp_path / "grown", queued, run_info(open_profile()))
    calm = written(tmp_path / "calm", steady, run_info(open_profile()))
    dropped = run_info(open_profile(), workers=[worker(dropped_arrivals=3)])
    full = written(tmp_path / "full", steady, dropped)
    late = [
        good(n, at_ms=n * 18.0, ttft_ms=20.0, intended_ns=START_NS + n * 10_000_000)
        for n in range(400)
    ]
    behind = written(tmp_path / "behind", [*late, unsent(400)], run_info(open_profile()))
    assert "of the offered rate was achieved" in str(saturation_of(grown, open_loop=True))
    assert saturation_of(grown, open_loop=False) is None
    assert saturation_of(calm, open_loop=True) is None
    assert saturation_of(behind, open_loop=True) is None
    assert "3 arrivals were dropped" in str(saturation_of(full, open_loop=True))


# -- targets ---------------------------------------------------------------------------------


def test_requests_that_met_each_target_are_counted_and_failures_met_none(tmp_path: Path) -> None:
    """A percentile of the run is a share of its requests, and of ITL one of its gaps."""
    records = [
        good(0, ttft_ms=100.0, gaps_ms=(10.0, 10.0, 10.0, 50.0)),
        good(1, ttft_ms=100.0, gaps_ms=(10.0, 10.0)),
        good(2, ttft_ms=400.0, gaps_ms=(10.0, 10.0)),
        good(3, ttft_ms=10.0, gaps_ms=(10.0,), phase="warmup"),
        failed(4, "http_500"),
    ]
    run = written(tmp_path / "run", records)
    targets = (
        *read_targets(("ttft_ms=300", "itl_ms=15", "ttft_p95_ms=300", "itl_p99_ms=20"), {}, 0.9),
    )
    assert targets == (
        Target(name="goodput", share=0.9, limits_ms={"ttft_ms": 300.0, "itl_ms": 15.0}),
        Target(name="ttft_p95_ms", share=0.95, limits_ms={"ttft_p95_ms": 300.0}),
        Target(name="itl_p99_ms", share=0.99, limits_ms={"itl_p99_ms": 20.0}),
    )
    requests, met = count_targets(run, targets)
    assert requests == 4
    assert met == [1.0, 2.0, pytest.approx(3 * 7 / 8)]


def test_without_a_flag_the_profiles_slos_are_the_goodput() -> None:
    """Its percentiles limit each request, as they do in a run."""
    slo = {"ttft_ms": 1000.0, "itl_p99_ms": 100.0}
    assert read_targets((), slo, None) == (Target(name="goodput", share=0.99, limits_ms=slo),)


@pytest.mark.parametrize(
    ("texts", "goodput", "told"),
    [
        ((), None, "the profile has no slo"),
        (("ttft=3",), None, "is no limit that a search can go by"),
        (("ttft_mean_ms=3",), None, "is no limit that a search can go by"),
        (("ttft_p95_ms",), None, "is no limit that a search can go by"),
        (("ttft_p95_ms=soon",), None, "is no number of ms"),
        (("ttft_p95_ms=-1",), None, "is no number of ms"),
        (("ttft_p0_ms=1",), None, "is no percentile"),
        (("ttft_p95_ms=3",), 0.9, "--goodput"),
    ],
)
def test_a_target_that_cannot_be_is_refused(
    texts: tuple[str, ...], goodput: float | None, told: str
) -> None:
    """With what to give instead."""
    with pytest.raises(UsageError, match=told) as caught:
        read_targets(texts, {}, goodput)
    assert caught.value.fix
