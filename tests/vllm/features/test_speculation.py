"""Speculative decoding with drafts from the prompt: figures that are vLLM's own counters."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from judging import form_kind
from measuring import Measured, check_served, measure, refined
from serving import Server, serving
from tapping import tapping

from kvswarm.profiles.load import load_profile
from kvswarm.serving.flags import vllm_flags

pytestmark = pytest.mark.vllm
logger = logging.getLogger("kvswarm.vllm")

VLLM = "0.32.0"
COUNTERS = {
    "drafts": "drafts",
    "draft_tokens": "draft_tokens",
    "accepted_tokens": "accepted_tokens",
}
BY_POSITION = "vllm:spec_decode_num_accepted_tokens_per_pos_total"
FLAGS = ["--requests", "24", "--max-tokens", "64"]
REPEATING = """
ignore_eos: false
request: {temperature: 1}
structured_output:
  control: false
  constraints:
    - {name: again, regex: "(alpha (beta|gamma) ){24}", ask: "Say it again."}
"""
"""Half of it comes again to the letter and half by chance: some drafts are accepted, and some are not."""


@pytest.fixture(scope="module")
def speculating(vllm_python: str, model: Path) -> Iterator[Server]:
    """A server with the flags that kvswarm makes of the packaged profile."""
    speculative = load_profile("speculative-decoding").speculative
    flags = vllm_flags({"speculative": speculative}, VLLM).arguments
    with serving(vllm_python, model, *flags) as running:
        yield running


@pytest.fixture(scope="module")
def measured(
    server: Server, speculating: Server, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Measured, Measured]:
    """The same workload on a server without speculation, and then against it on one with."""
    profile = refined("speculative-decoding", server, tmp_path_factory.mktemp("profile"))
    flags = ["--profile", str(profile), *FLAGS]
    base = measure(server, tmp_path_factory.mktemp("without"), *flags, seed=7)
    baseline = ["--baseline", str(base.path)]
    run = measure(speculating, tmp_path_factory.mktemp("with"), *flags, *baseline, seed=7)
    logger.info("speculative-decoding, attempt %d\n%s", len(run.attempts), run.output)
    return base, run


def counted_speculation(run: Measured) -> dict[str, Any]:
    """The figures of docs/metrics.md, from the counters as they were before and after."""
    counted = {name: run.counted(f"vllm:spec_decode_num_{name}_total") for name in COUNTERS}
    before = run.before.by_label(BY_POSITION, "position")
    after = run.after.by_label(BY_POSITION, "position")
    drafts, accepted = counted["drafts"], counted["accepted_tokens"]
    by_position = [(after[str(place)] - before[str(place)]) / drafts for place in range(len(after))]
    return {
        **counted,
        "acceptance_share": pytest.approx(accepted / counted["draft_tokens"]),
        "mean_acceptance_length": pytest.approx(1 + accepted / drafts),
        "acceptance_by_position": pytest.approx(by_position),
    }


def test_speculation_is_told_as_the_server_counts_it(
    measured: tuple[Measured, Measured],
) -> None:
    """Drafts, their tokens, how many were accepted and at which position."""
    for attempt in measured[1].attempts:
        check_served(attempt)
        told = attempt.summary["server"]["speculation"]
        assert told == counted_speculation(attempt)
        assert len(told["acceptance_by_position"]) == 4
        assert attempt.summary["server"]["generation_tokens"] == 64 * 24
    logger.info("speculation: %s", measured[1].summary["server"]["speculation"])


def test_the_wire_has_several_tokens_in_an_event(measured: tuple[Measured, Measured]) -> None:
    """Tokens are the server's count; events are fewer by what was accepted."""
    base, run = measured
    assert (base.rows["events"] >= 0.9 * base.rows["completion_tokens"]).all()
    per_event = run.rows["completion_tokens"].sum() / run.rows["events"].sum()
    accepted = run.counted("vllm:spec_decode_num_accepted_tokens_total")
    tokens = run.counted("vllm:generation_tokens_total")
    # One event for each step, which has a token of its own beside those accepted. max_tokens may
    # have cut some of the last step's, and a special token has no text and no event.
    steps = tokens - accepted
    assert 0.95 * steps <= run.rows["events"].sum() <= steps + len(run.rows)
    assert per_event > 1.5
    logger.info("tokens per event: %.2f", per_event)


def test_a_baseline_without_speculation_shows_what_it_does(
    measured: tuple[Measured, Measured],
) -> None:
    """Every figure with its interval, from requests in pairs; more tokens in an event."""
    base, run = measured
    section = run.summary["baseline"]
    assert section["run"] == base.summary["run"]["id"]
    assert section["path"] == str(base.path)
    assert section["profile"] == "speculative-decoding"
    assert section["verdict"] == base.summary["verdict"]["status"]
    for figure in ("output_tokens_per_s", "requests_per_s"):
        assert section[figure] == base.summary["throughput"][figure]
    effects = {effect["figure"]: effect for effect in section["effects"]}
    assert set(effects) == {
        "ttft_ms", "itl_ms", "tpot_ms", "output_tokens_per_s", "e2e_ms", "tokens_per_event",
    }  # fmt: skip
    assert all(effect["count"] == 24 for effect in effects.values())
    assert effects["tpot_ms"]["reference"] == pytest.approx(base.rows["tpot_ms"].median())
    assert effects["tokens_per_event"]["low"] > 0
    assert f"against {base.path}" in run.output


def test_figures_hold_where_some_drafts_are_rejected(
    speculating: Server, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """And a form holds although its tokens were drafted; events and tokens are those of the wire."""
    profile = refined("speculative-decoding", speculating, tmp_path, *REPEATING.splitlines())
    with tapping(speculating) as (tapped, seen):
        flags = ["--requests", "24", "--max-tokens", "400"]
        run = measure(
            tapped, tmp_path_factory.mktemp("repeating"), "--profile", str(profile), *flags
        )
    logger.info("with a repeating form, attempt %d\n%s", len(run.attempts), run.output)
    for attempt in run.attempts:
        check_served(attempt)
        told = attempt.summary["server"]["speculation"]
        assert told == counted_speculation(attempt)
        assert 0.02 < told["acceptance_share"] < 0.8
        assert told["acceptance_by_position"] == sorted(
            told["acceptance_by_position"], reverse=True
        )
    assert set(run.rows["output_score"]) == {"valid"}
    wire = seen[-24:]
    assert {form_kind(one) for one in wire} == {"valid"}
    assert run.rows["events"].sum() == sum(len(one.texts) for one in wire)
    assert run.rows["completion_tokens"].sum() == sum(
        one.usage["completion_tokens"] for one in wire
    )
    assert run.rows["completion_tokens"].sum() > 1.2 * run.rows["events"].sum()
    logger.info("speculation: %s", told)
