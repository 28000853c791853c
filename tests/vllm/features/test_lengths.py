"""The attention profile, and standard beside adapters and tools: prompts as long as they were asked."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from measuring import check_served, measure, refined
from serving import Server

pytestmark = pytest.mark.vllm
logger = logging.getLogger("kvswarm.vllm")

LENGTHS = [64, 640, 1536]


def test_ttft_grows_with_the_prompt(server: Server, runs: Path, tmp_path: Path) -> None:
    """Lengths take turns; medians of each tell what a prompt costs before its first token."""
    lengths = f"input_tokens: {{values: {LENGTHS}}}"
    profile = refined("attention", server, tmp_path, lengths)
    flags = ["--requests", "60", "--concurrency", "1", "--max-tokens", "8"]
    run = measure(server, runs, "--profile", str(profile), *flags)
    logger.info("attention, attempt %d\n%s", len(run.attempts), run.output)
    for attempt in run.attempts:
        check_served(attempt)
        rows = attempt.rows
        assert rows.groupby("asked_input_tokens").size().to_dict() == dict.fromkeys(LENGTHS, 20)
        assert (rows["prompt_tokens"] - rows["asked_input_tokens"]).nunique() == 1
        assert attempt.counted("vllm:prefix_cache_hits_total") == 0
    variants = {v["variant"]: v for v in run.summary["variants"]}
    assert list(variants) == [f"{length} tokens" for length in LENGTHS]
    medians_ms = [v["ttft_ms"]["p50"] for v in variants.values()]
    assert medians_ms == sorted(medians_ms)
    assert medians_ms[-1] > 1.2 * medians_ms[0]
    logger.info("TTFT p50 by length: %s ms", dict(zip(LENGTHS, medians_ms, strict=True)))


def test_standard_is_served_as_asked_beside_features_that_nobody_uses(
    server: Server, runs: Path, tmp_path: Path
) -> None:
    """A server with adapters lists several models; who names none means the model itself."""
    profile = refined("standard", server, tmp_path)
    flags = ["--requests", "24", "--concurrency", "4", "--max-tokens", "16"]
    run = measure(server, runs, "--profile", str(profile), *flags)
    assert run.code == 0, run.output
    for attempt in run.attempts:
        check_served(attempt)
        assert (attempt.rows["completion_tokens"] == 16).all()
        assert (attempt.rows["prompt_tokens"] - attempt.rows["asked_input_tokens"]).nunique() == 1
        assert (attempt.rows["cached_tokens"] == 0).all()
