"""Whole runs against servers that make streams stand still, and what is said of it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from running import forgiving, run, simulator

PREFILL_MS = 290.0


def stalls_of(folder: Path, profile: str, *server: str) -> tuple[dict[str, Any], str]:
    """The section of a run against a server with these flags, and what the terminal said."""
    with simulator(*server) as url:
        done = run(folder / "run", "--profile", forgiving(folder, profile), "--url", url)
    assert done.code == 0, done.err
    return dict(done.run.summary["stalls"]), done.out


def test_stalls_of_a_full_kv_cache_are_told_by_the_servers_own_counter(tmp_path: Path) -> None:
    """Eight streams outgrow a cache that holds six: some are preempted and stand still."""
    stalls, out = stalls_of(
        tmp_path,
        "requests: 8\nconcurrency: 8\ninput_tokens: 64\nmax_tokens: 96",
        "--num-kv-blocks", "60", "--step-ms", "10", "--prefill-us", "500",
    )  # fmt: skip
    assert stalls["untold"] == []
    longest = stalls["longest"][0]
    assert longest["gap_ms"] >= stalls["threshold_ms"]
    assert "preemption" in longest["causes"]
    assert "stalls     preemption: " in out


def test_a_stall_by_anothers_long_prompt_is_told_from_the_runs_own_rows(tmp_path: Path) -> None:
    """A prompt of 1500 tokens takes 300 ms, in which no other stream has a token."""
    stalls, out = stalls_of(
        tmp_path,
        "requests: 8\nconcurrency: 2\ninput_tokens: 1500\noutput_tokens: {uniform: {min: 10, max: 40}}",
        "--step-ms", "5", "--prefill-us", "200",
    )  # fmt: skip
    # Shorter ones, or those that were read late, may be of the machine that runs this test.
    planted = [
        each["causes"]
        for each in stalls["longest"]
        if each["gap_ms"] >= PREFILL_MS and each["causes"] != ["generator"]
    ]
    assert planted
    assert all("prefill" in causes for causes in planted)
    assert not any("preemption" in causes for causes in planted)
    assert "another's long prefill: " in out
