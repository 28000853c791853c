"""Two targets in alternating blocks: what differs is found, and what drifts is not."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parent))
from rundirs import good, profile, run_info, summary_of

from kvswarm.analysis.interleaved import LEAST_PAIRS, effects_of
from kvswarm.rundir import InterleaveInfo, TargetInfo
from kvswarm.workload.interleaving import interleaving_as

BLOCK, GUARD = 24, 2
OTHER = TargetInfo(base_url="http://127.0.0.1:8001/v1", model="m-awq", endpoint="chat")
INTERLEAVE = InterleaveInfo(target=OTHER, block_requests=BLOCK, guard_requests=GUARD, seed=3)
ALTERNATION = interleaving_as(INTERLEAVE)
PLANTED = 1.05


def ttft_ms(generator: np.random.Generator, pairs: int, factor: float) -> NDArray[Any]:
    """TTFT with a drift over the whole run and a memory of some requests; B's by a factor."""
    count = 2 * BLOCK * pairs
    noise = np.zeros(count)
    fresh = generator.normal(0, 20, count)
    for index in range(1, count):
        noise[index] = 0.5 * noise[index - 1] + fresh[index]
    drifting = 100 + 40 * np.arange(count) / count + noise
    arms = ALTERNATION.arms(np.arange(count))
    values: NDArray[Any] = np.maximum(drifting, 1.0) * np.where(arms == 1, factor, 1.0)
    return values


def effects(values: NDArray[Any]) -> dict[str, dict[str, Any]]:
    """What is said of requests with these TTFTs, by figure."""
    indices = np.arange(len(values))
    kept = ALTERNATION.kept(indices)
    whole = {
        "index": indices.astype(float),
        "ok": np.ones(len(values)),
        "ttft_ms": values,
        "itl_ms": np.full(len(values), np.nan),
        "tpot_ms": np.full(len(values), np.nan),
        "e2e_ms": values + 50,
        "tokens": np.full(len(values), 8.0),
    }
    found = effects_of({name: column[kept] for name, column in whole.items()}, ALTERNATION)
    return {effect["figure"]: effect for effect in found}


def test_of_500_runs_of_the_same_at_most_5_percent_are_told_apart() -> None:
    """A drift that is a third of the figure, and neighbours that are alike, do not count."""
    generator = np.random.default_rng(11)
    runs = [effects(ttft_ms(generator, 8, 1.0)) for _ in range(500)]
    words = [{effect["verdict"] for effect in run.values()} for run in runs]
    false = sum(bool(said & {"faster", "slower"}) for said in words)
    # 5 % of 500 is 25; a binomial's 99 % quantile is 37.
    assert false <= 37
    ttft = [run["ttft_p50_ms"]["p_value"] < 0.05 for run in runs]
    assert 8 <= sum(ttft) <= 43, "a test that never errs is no test of 5 %"


def test_a_planted_difference_is_found_with_the_stated_power() -> None:
    """5 % with as many pairs of blocks as a run says, in 80 of 100 cases; and its size."""
    generator = np.random.default_rng(12)
    runs_before = [effects(ttft_ms(generator, 12, 1.0))["ttft_p50_ms"] for _ in range(40)]
    pairs = int(np.median([run["pairs_needed"] for run in runs_before]))
    assert pairs > LEAST_PAIRS
    runs = [effects(ttft_ms(generator, pairs, PLANTED))["ttft_p50_ms"] for _ in range(100)]
    assert sum(run["verdict"] == "slower" for run in runs) >= 70
    inside = [run["low"] <= 0.05 * run["reference"] <= run["high"] for run in runs]
    assert sum(inside) >= 88


def test_fewer_pairs_than_six_tell_nothing_and_say_so() -> None:
    said = effects(ttft_ms(np.random.default_rng(1), 5, 2.0))["ttft_p50_ms"]
    assert said["low"] is None
    assert said["verdict"] == "too little to tell: 5 pairs of blocks, 6 are needed"


def test_the_summary_of_a_run_has_both_targets(tmp_path: Path) -> None:
    """Each with its own requests, less those of a block's ends; B's are 20 ms slower here."""
    count = 2 * BLOCK * 6
    arms = ALTERNATION.arms(np.arange(count))
    rows = [
        good(index, at_ms=index * 10.0, ttft_ms=100.0 + index % 7 + 20.0 * arms[index])
        for index in range(count)
    ]
    of = profile(load={"requests": count, "concurrency": GUARD})
    info = run_info(of, interleave=INTERLEAVE)
    section = summary_of(tmp_path, rows, info)["interleave"]
    one, other = section["arms"]
    assert (one["name"], other["name"]) == ("A", "B")
    assert (one["model"], other["model"]) == ("m", "m-awq")
    assert one["requests"] == other["requests"] == 6 * (BLOCK - 2 * GUARD)
    ttft = next(e for e in section["effects"] if e["figure"] == "ttft_p50_ms")
    assert ttft["difference"] == pytest.approx(20.0, abs=1.5)
    assert ttft["verdict"] == "slower"
