"""kvswarm's profiles against real vLLM: nothing lost, tokens and times as the server has them.

vLLM's TTFT runs from when its API server begins to render the prompt until that process holds the
first token. Ours begins before (the request's first byte) and ends after it (the first chunk has
come), so no request can be faster to us than to vLLM, and what lies between is HTTP, JSON and the
wait for a turn of the API server's event loop. See docs/vllm.md for the figures.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parent))
from measuring import Measured, check_served, measure, refined
from serving import Histogram, Server, serving

pytestmark = pytest.mark.vllm
logger = logging.getLogger("kvswarm.vllm")

TTFT = "vllm:time_to_first_token_seconds"
ITL = "vllm:inter_token_latency_seconds"
TPOT = "vllm:request_time_per_output_token_seconds"
E2E = "vllm:e2e_request_latency_seconds"

HTTP_SHARE = 0.2
HTTP_S = 0.010
"""Between vLLM's TTFT (or E2E) and ours, on average: at most this share of vLLM's TTFT and this time.

A share, because on vLLM's one core HTTP and the model slow each other down. Seen, on a quiet machine
and on a busy one: 3 to 7 % (2.6 to 27 ms)."""
EDGES_S = 0.025
"""First and last token of a request may be late by different times; seen: 0.6 to 2.6 ms on average."""
JITTER_S = 0.005
OUTLIERS_SHARE = 0.05
"""A gap may differ by JITTER_S, and these many by more."""

MAX_TOKENS = 32
SCALED = {
    "standard": ["--requests", "60", "--concurrency", "8"],
    "burst": ["--requests", "60", "--rate", "8"],
    "sustained": ["--duration", "20", "--rate", "3"],
}
"""Each profile, and the flags that scale it down to a model on one core."""


@pytest.fixture(scope="module")
def server(vllm_python: str, model: Path) -> Iterator[Server]:
    """One server for all tests here."""
    with serving(vllm_python, model) as running:
        yield running


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the run directories go; their number gives every run a seed of its own."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module", params=SCALED)
def measured(
    request: pytest.FixtureRequest,
    server: Server,
    runs: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Measured:
    """One run of each profile."""
    name: str = request.param
    profile = refined(name, server, tmp_path_factory.mktemp("profiles"))
    flags = [*SCALED[name], "--max-tokens", str(MAX_TOKENS)]
    run = measure(server, runs, "--profile", str(profile), *flags)
    logger.info("%s, attempt %d\n%s", name, len(run.attempts), run.output)
    return run


def check_counts(run: Measured) -> None:
    """Both sides counted the same, and every answer has the tokens that were asked for."""
    check_served(run)
    rows = run.rows
    assert (rows["completion_tokens"] == rows["asked_output_tokens"]).all()
    assert (rows["finish_reason"] == "length").all()
    # A token without text (the three special ones) has no event, and a late chunk may hold two.
    assert (rows["events"] <= rows["completion_tokens"]).all()
    assert rows["events"].sum() >= 0.9 * rows["completion_tokens"].sum()


def template_tokens(server: Server) -> int:
    """Tokens that the chat template adds to a user's message, by the server's own tokenizer."""
    alone = server.count_tokens({"prompt": "hello", "add_special_tokens": False})
    return server.count_tokens({"messages": [{"role": "user", "content": "hello"}]}) - alone


def test_a_run_ends_well_and_with_a_verdict(measured: Measured) -> None:
    """Exit code 0, and the verdict that summary.json holds is the one that is printed."""
    assert measured.code == 0, measured.output
    verdict = measured.summary["verdict"]
    assert verdict["status"] in {"valid", "degraded"}
    assert f"verdict    {verdict['status']}" in measured.output
    assert (verdict["status"] == "valid") == (not verdict["reasons"])


def test_every_request_has_one_row_and_the_tokens_that_the_server_counted(
    measured: Measured,
) -> None:
    """The server counts on its own; attempts that the machine spoiled must agree with it too."""
    for attempt in measured.attempts:
        check_counts(attempt)


def test_chat_prompts_are_exact_and_no_two_share_the_prefix_cache(
    measured: Measured, server: Server
) -> None:
    """What was asked, and the chat template: the same number of tokens for every request."""
    rows = measured.rows
    own = template_tokens(server)
    assert own > 0
    assert (rows["prompt_tokens"] == rows["asked_input_tokens"] + own).all()
    assert measured.counted("vllm:prefix_cache_hits_total") == 0


def test_the_summary_holds_both_sides_and_they_agree(measured: Measured) -> None:
    """The same comparison as here, which every run makes for itself."""
    server = measured.summary["server"]
    assert server["kind"] == "vllm"
    assert server["window"]["whole"] is True
    lines = server["reconciliation"]
    assert lines["requests"]["difference"] == 0, lines["requests"]
    # A window after a warm-up begins while requests of it may be in flight: their tokens are counted
    # when they come, and by the client when they end. Over the whole run they are equal (above).
    warmed = bool((measured.rows["phase"] == "warmup").any())
    for name in ("prompt_tokens", "output_tokens"):
        at_edge = warmed and "at an edge of the window" in lines[name]["explained"]
        assert lines[name]["difference"] == 0 or at_edge, (name, lines[name])
    assert not [name for name in lines if "contradict" in lines[name]["explained"]]
    assert server["kv_cache"]["tokens"] > 0


def test_ttft_is_that_of_the_servers_histogram_and_a_little_for_http(measured: Measured) -> None:
    """Never earlier than vLLM had its tokens, and later by no more than HTTP takes."""
    ttft_s = np.sort(measured.rows["ttft_ms"].to_numpy()) / 1e3
    histogram = measured.histogram(TTFT)
    over_s = float(ttft_s.mean()) - histogram.mean
    shift_s = largest_shift_s(ttft_s, histogram)
    logger.info(
        "TTFT: mean %.2f ms, vLLM's %.2f ms, %.2f ms between; distributions up to %.2f ms apart",
        *(seconds * 1e3 for seconds in (ttft_s.mean(), histogram.mean, over_s, shift_s)),
    )
    assert histogram.count == len(ttft_s)
    for edge_s, count in zip(histogram.edges, histogram.cumulative, strict=True):
        assert (ttft_s <= edge_s).sum() <= count, f"earlier than vLLM had them: TTFT <= {edge_s} s"
    assert 0 <= over_s <= allowed_s(histogram)
    assert shift_s <= 2 * allowed_s(histogram)


def allowed_s(server_ttft: Histogram) -> float:
    """How much longer than vLLM's our mean may be."""
    return HTTP_S + HTTP_SHARE * server_ttft.mean


def largest_shift_s(values_s: NDArray[np.float64], histogram: Histogram) -> float:
    """By how much sorted values must be lowered at most, for as many to be at or below each edge."""
    shifts = [
        values_s[int(count) - 1] - edge
        for edge, count in zip(histogram.edges, histogram.cumulative, strict=True)
        if count
    ]
    return max(0.0, *shifts)


def test_token_times_are_those_of_the_servers_histograms(measured: Measured) -> None:
    """From the first token to the last, in sum and per token."""
    rows = measured.rows
    decode_s = (rows["last_token_ns"] - rows["first_token_ns"]).to_numpy() / 1e9
    itl, tpot = measured.histogram(ITL), measured.histogram(TPOT)
    logger.info("ITL: %.3f s in all, vLLM's %.3f s", decode_s.sum(), itl.sum)
    logger.info("TPOT: mean %.3f ms, vLLM's %.3f ms", rows["tpot_ms"].mean(), tpot.mean * 1e3)
    assert itl.count == (rows["completion_tokens"] - 1).sum()
    assert tpot.count == len(rows)
    assert abs(decode_s.sum() - itl.sum) <= len(rows) * EDGES_S
    assert abs(rows["tpot_ms"].mean() / 1e3 - tpot.mean) <= EDGES_S / (MAX_TOKENS - 1)


def test_the_spread_of_itl_is_that_of_the_servers_histogram(measured: Measured) -> None:
    """A client that gathered tokens, or stalled, would show other gaps than the server made."""
    gaps_s = np.concatenate(measured.rows["itl_us"].to_numpy()) / 1e6
    histogram = measured.histogram(ITL)
    for edge_s, count in zip(histogram.edges, histogram.cumulative, strict=True):
        share = count / histogram.count
        assert (gaps_s <= edge_s - JITTER_S).mean() <= share + OUTLIERS_SHARE, edge_s
        assert (gaps_s <= edge_s + JITTER_S).mean() >= share - OUTLIERS_SHARE, edge_s


def test_e2e_is_that_of_the_servers_histogram_and_a_little_for_http(measured: Measured) -> None:
    """The whole request, as vLLM timed it."""
    histogram = measured.histogram(E2E)
    mean_s = measured.rows["e2e_ms"].mean() / 1e3
    logger.info("E2E: mean %.2f ms, vLLM's %.2f ms", mean_s * 1e3, histogram.mean * 1e3)
    assert histogram.count == len(measured.rows)
    assert 0 <= mean_s - histogram.mean <= allowed_s(measured.histogram(TTFT))


def test_completions_prompts_are_exact_with_their_first_token(
    server: Server, runs: Path, tmp_path: Path
) -> None:
    """Completions begin with BOS, which the server counts: usage is what was asked."""
    spread = "input_tokens: {uniform: {min: 8, max: 200}}"
    profile = refined("standard", server, tmp_path, "endpoint: completions", spread)
    flags = ["--requests", "24", "--concurrency", "4", "--max-tokens", "8"]
    run = measure(server, runs, "--profile", str(profile), *flags)
    assert run.code == 0, run.output
    for attempt in run.attempts:
        check_counts(attempt)
        assert (attempt.rows["endpoint"] == "completions").all()
        assert (attempt.rows["prompt_tokens"] == attempt.rows["asked_input_tokens"]).all()
        assert attempt.rows["asked_input_tokens"].nunique() > 10


def test_a_packaged_profile_by_its_name_ends_with_the_code_of_its_gates(
    server: Server, runs: Path
) -> None:
    """Without a tokenizer, and with gates for a GPU: 0 where a CPU passes them, else 1."""
    flags = ["--requests", "20", "--concurrency", "2", "--max-tokens", "8"]
    run = measure(server, runs, "--profile", "standard", *flags)
    for attempt in run.attempts:
        check_counts(attempt)
    passed = {gate["name"]: gate["passed"] for gate in run.summary["gates"]}
    assert passed["error_share"]
    assert run.code == (0 if all(passed.values()) else 1), run.output
