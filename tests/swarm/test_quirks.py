"""Servers whose streams are not one token to an event: figures against what the simulator knows."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from running import Run, forgiving, run, simulator

QUIRKS = {
    "reasoning": ("--reasoning-tokens", "6"),
    "keep-alive": ("--keep-alive",),
    "bundled": ("--stream-interval", "4"),
    "drafted": ("--speculative-tokens", "3", "--acceptance", "0.6"),
    "all of them": (
        "--reasoning-tokens", "6", "--keep-alive", "--stream-interval", "4",
        "--speculative-tokens", "3",
    ),
}  # fmt: skip
TOKENS = 30


@pytest.fixture(scope="module", params=QUIRKS)
def measured(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Run, dict[int, dict[str, Any]]]:
    """A run against a server with a quirk, and what that server wrote down, by request."""
    folder = tmp_path_factory.mktemp("quirk")
    truth = folder / "truth.jsonl"
    arguments = (*QUIRKS[request.param], "--step-ms", "5", "--truth-log", str(truth))
    profile = forgiving(folder, f"max_tokens: {TOKENS}\nrequest: {{return_token_ids: true}}")
    with simulator(*arguments) as url:
        done = run(folder / "run", "--profile", profile, "--url", url)
    assert done.code == 0, done.err
    lines = [json.loads(line) for line in truth.read_text().splitlines()]
    return request.param, done.run, {int(line["id"].rpartition("-")[2]): line for line in lines}


def test_events_and_tokens_are_those_that_were_sent(
    measured: tuple[str, Run, dict[int, dict[str, Any]]],
) -> None:
    """An event is not a token, and a comment is neither."""
    quirk, done, truth = measured
    assert len(done.rows) == len(truth) == 20
    for row in done.rows:
        line = truth[row["index"]]
        assert row["error_kind"] is None
        assert row["events"] == line["events"]
        assert row["completion_tokens"] == line["tokens"] == TOKENS
        assert len(row["itl_us"]) == line["events"] - 1
        told = row["event_tokens"] or [1] * row["events"]
        assert sum(told) == TOKENS
        assert row["reasoning_tokens"] == (6 if "reasoning" in QUIRKS[quirk][0] else 0) or (
            row["reasoning_tokens"] is None
        )
    if quirk in {"bundled", "drafted", "all of them"}:
        assert any(row["events"] < TOKENS for row in done.rows)


def test_ttft_and_tpot_count_from_the_first_token_of_any_kind(
    measured: tuple[str, Run, dict[int, dict[str, Any]]],
) -> None:
    """Reasoning is output that is waited for; several tokens of the first event are one gap less."""
    _, done, truth = measured
    for row in done.rows:
        line = truth[row["index"]]
        # Our stamp is the kernel's, taken when the simulator handed the bytes over, or later.
        assert row["first_token_ns"] == pytest.approx(line["first_token_ns"], abs=50e6)
        assert row["last_token_ns"] == pytest.approx(line["last_token_ns"], abs=50e6)
        first = row["first_event_tokens"] or 1
        streaming_ms = (row["last_token_ns"] - row["first_token_ns"]) / 1e6
        assert row["tpot_ms"] == pytest.approx(streaming_ms / (TOKENS - first))
