"""The profiles that are about the prefix cache: hits as vLLM counts them, and where they fall."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from measuring import Measured, check_served, measure, refined
from serving import Server

pytestmark = pytest.mark.vllm
logger = logging.getLogger("kvswarm.vllm")

PREFIX_TOKENS = 1536
SCALED = [f"shared_prefix_tokens: {PREFIX_TOKENS}", "input_tokens: 1664", "warmup: null"]


@pytest.fixture(scope="module")
def measured(server: Server, runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """A run of the profile, scaled to a context of 2,048 tokens."""
    profile = refined("prefix-caching", server, tmp_path_factory.mktemp("profile"), *SCALED)
    flags = ["--requests", "60", "--concurrency", "1", "--max-tokens", "16"]
    run = measure(server, runs, "--profile", str(profile), *flags)
    logger.info("prefix-caching, attempt %d\n%s", len(run.attempts), run.output)
    return run


def check_hits(run: Measured) -> None:
    """Usage, the summary and the server's counters agree on the cached tokens."""
    check_served(run)
    hits = run.counted("vllm:prefix_cache_hits_total")
    queries = run.counted("vllm:prefix_cache_queries_total")
    told = run.summary["server"]["prefix_cache"]
    assert run.rows["cached_tokens"].notna().all()
    assert run.rows["cached_tokens"].sum() == hits > 0
    assert told == {"query_tokens": queries, "hit_tokens": hits, "hit_share": told["hit_share"]}
    assert told["hit_share"] == pytest.approx(hits / queries)
    share = run.rows["cached_tokens"].sum() / run.rows["prompt_tokens"].sum()
    assert share == pytest.approx(hits / queries, rel=0.02)


def test_hits_are_those_that_the_server_counts(measured: Measured) -> None:
    """By usage of each request, and by the server's metrics over the run."""
    for attempt in measured.attempts:
        check_hits(attempt)
    logger.info("hit share %.4f", measured.summary["server"]["prefix_cache"]["hit_share"])


def test_only_shared_prefixes_hit(measured: Measured) -> None:
    """A hit of a prompt with a prefix of its own would be two prompts that start alike."""
    rows = measured.rows
    cached = {name: rows[rows["variant"] == name]["cached_tokens"] for name in set(rows["variant"])}
    assert set(cached) == {"own prefix", "shared prefix"}
    assert (cached["own prefix"] == 0).all()
    assert set(cached["shared prefix"]) <= {0, PREFIX_TOKENS}
    # Whoever comes while the first of its prefix is still at work finds nothing yet.
    assert (cached["shared prefix"] > 0).mean() > 0.5


def test_ttft_of_hits_and_of_misses_stand_against_each_other(measured: Measured) -> None:
    """What the cache saves: nine tenths of a prompt need no prefill."""
    told = {
        (effect["of"], effect["against"]): effect
        for effect in measured.summary["effects"]
        if effect["figure"] == "ttft_ms"
    }
    assert ("shared prefix", "own prefix") in told
    hit = told["prefix hit", "prefix miss"]
    is_hit = measured.rows["cached_tokens"] > 0
    assert hit["count"] == min(is_hit.sum(), (~is_hit).sum())
    assert hit["reference"] == pytest.approx(measured.rows["ttft_ms"][~is_hit].median())
    assert hit["difference"] == pytest.approx(
        measured.rows["ttft_ms"][is_hit].median() - hit["reference"]
    )
    assert hit["difference"] < 0
    tokens = {v["variant"]: v["mean_cached_tokens"] for v in measured.summary["variants"]}
    assert tokens["own prefix"] == 0 < tokens["shared prefix"]


def test_the_cached_part_of_a_conversation_grows_with_its_turns(
    server: Server, runs: Path, tmp_path: Path
) -> None:
    """Every turn brings the ones before, whose blocks the server still has."""
    short = "output_tokens: {uniform: {min: 16, max: 48}}"
    turns = "conversation: {turns: 6, think_time_s: 0}"
    profile = refined("multi-turn", server, tmp_path, short, turns)
    flags = ["--requests", "60", "--concurrency", "4"]
    run = measure(server, runs, "--profile", str(profile), *flags)
    logger.info("multi-turn, attempt %d\n%s", len(run.attempts), run.output)
    for attempt in run.attempts:
        check_hits(attempt)
        block_tokens = attempt.summary["server"]["kv_cache"]["block_size_tokens"]
        for _, talk in attempt.rows.sort_values("turn").groupby("group"):
            assert talk["turn"].tolist() == list(range(len(talk)))
            cached, prompts = talk["cached_tokens"].tolist(), talk["prompt_tokens"].tolist()
            assert cached[0] == 0
            for now, before in zip(cached[1:], prompts, strict=False):
                assert now >= before // block_tokens * block_tokens
    by_turn = {v["variant"]: v["mean_cached_tokens"] for v in run.summary["variants"]}
    assert list(by_turn) == [f"turn {turn}" for turn in range(1, 7)]
    assert list(by_turn.values()) == sorted(by_turn.values())
    assert by_turn["turn 6"] > by_turn["turn 2"]
    logger.info("mean cached tokens by turn: %s", by_turn)
