"""Arrivals of an open loop are those that were asked for, over however many processes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from kvswarm.profiles.model import profile_from_dict
from kvswarm.workload.arrivals import HEAVY_SHAPE, arrivals

sys.path.insert(0, str(Path(__file__).parent))
from running import Done, forgiving, run, simulator

RATE_RPS = 150.0
REQUESTS = 600
SEED = 5
PATTERNS = {
    "constant": "",
    "poisson": "",
    "gamma": "burstiness: 0.5",
    "heavy": "",
    "bursty": "on_s: 0.5\noff_s: 0.5\noff_rate_rps: 30",
}
DISTRIBUTIONS = {
    "poisson": stats.expon(scale=1 / RATE_RPS),
    "gamma": stats.gamma(0.5, scale=2 / RATE_RPS),
    "heavy": stats.lomax(HEAVY_SHAPE, scale=(HEAVY_SHAPE - 1) / RATE_RPS),
}
CASES = [
    ("poisson", 1), ("poisson", 2), ("poisson", 4), ("constant", 4), ("gamma", 2), ("heavy", 4),
    ("bursty", 2),
]  # fmt: skip
Runs = dict[tuple[str, int], Future[Done]]


def play(folder: Path, url: str, pattern: str, workers: int) -> Done:
    profile = forgiving(
        folder,
        f"pattern: {pattern}\nrate_rps: {RATE_RPS}\nrequests: {REQUESTS}\nconcurrency: null\n"
        f"seed: {SEED}\nmax_tokens: 2\n{PATTERNS[pattern]}",
    )
    many = () if workers == 1 else ("--processes", str(workers))
    return run(folder / "run", "--profile", profile, "--url", url, *many)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    with simulator("--exact", "5", "1") as url, ThreadPoolExecutor(2) as pool:
        yield {
            (pattern, workers): pool.submit(
                play, tmp_path_factory.mktemp(f"{pattern}-{workers}"), url, pattern, workers
            )
            for pattern, workers in CASES
        }


def intended_s(done: Done) -> NDArray[np.float64]:
    """When the merged rows were to arrive, since the load began."""
    started_ns = done.run.info["load_started_ns"]
    return np.sort([row["intended_ns"] - started_ns for row in done.run.rows]) / 1e9


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def test_the_merged_arrivals_are_those_of_the_one_schedule(
    runs: Runs, case: tuple[str, int]
) -> None:
    """All workers count from one moment, so that nothing shifts their parts against each other."""
    done = runs[case].result()
    assert done.code in {0, 3}, done.err  # 3: on a busy machine they may be sent late
    load = profile_from_dict(done.run.info["profile"]).load
    schedule = np.array([offset_ns for _, offset_ns in arrivals(load, SEED)]) / 1e9
    merged = intended_s(done)
    assert len(merged) == REQUESTS
    assert np.abs(merged - schedule).max() < 1e-6
    assert {row["worker"] for row in done.run.rows} == set(range(case[1]))


@pytest.mark.parametrize(
    "case", [c for c in CASES if c[0] in DISTRIBUTIONS], ids=lambda case: f"{case[0]}-{case[1]}"
)
def test_the_gaps_between_merged_arrivals_follow_the_asked_distribution(
    runs: Runs, case: tuple[str, int]
) -> None:
    """A Kolmogorov-Smirnov test: p falls to nothing where workers shift or share their dice."""
    gaps_s = np.diff(intended_s(runs[case].result()))
    assert stats.kstest(gaps_s, DISTRIBUTIONS[case[0]].cdf).pvalue > 0.01


def test_requests_are_sent_at_the_rate_that_was_asked_for(runs: Runs) -> None:
    """Within 1 %, from the first to the last."""
    rows = runs["constant", 4].result().run.rows
    sent_s = np.sort([row["sent_ns"] for row in rows]) / 1e9
    rate_rps = (REQUESTS - 1) / (sent_s[-1] - sent_s[0])
    assert rate_rps == pytest.approx(RATE_RPS, rel=0.01)
