"""Chunks of several tokens, as real vLLM sends them with --stream-interval 4."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from measuring import Measured, measure
from serving import Server, serving

pytestmark = pytest.mark.vllm

INTERVAL = 4
FLAGS = ["--requests", "20", "--concurrency", "2", "--max-tokens", "32"]
ITL = "vllm:inter_token_latency_seconds"
TPOT = "vllm:request_time_per_output_token_seconds"


@pytest.fixture(scope="module")
def server(vllm_python: str, model: Path) -> Iterator[Server]:
    """One server for all tests here."""
    with serving(vllm_python, model, "--stream-interval", str(INTERVAL)) as running:
        yield running


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the run directories go."""
    return tmp_path_factory.mktemp("runs")


def bundled(server: Server, runs: Path, directory: Path, request: str) -> Measured:
    """Run with these members in every request. Special tokens have text: no token is without."""
    profile = directory / "bundled.yaml"
    profile.write_text(
        f"extends: standard\ninput_tokens: 64\nslo: null\nrequest: {{{request}}}\n"
        f"tokenizer: {server.tokenizer}\n"
    )
    run = measure(server, runs, "--profile", str(profile), *FLAGS)
    assert run.code == 0, run.output
    assert run.rows["error_kind"].isna().all()
    assert (run.rows["completion_tokens"] == 32).all()
    assert run.counted("vllm:generation_tokens_total") == 32 * len(run.rows)
    return run


def test_tokens_of_each_event_are_read_where_the_server_tells(
    server: Server, runs: Path, tmp_path: Path
) -> None:
    """With token_ids in every chunk, TPOT is the server's although the gaps between chunks are not."""
    run = bundled(server, runs, tmp_path, "return_token_ids: true, skip_special_tokens: false")
    for tokens, events in zip(run.rows["event_tokens"], run.rows["events"], strict=True):
        assert len(tokens) == events <= 1 + 32 / INTERVAL
        assert sum(tokens) == 32
        assert tokens[0] == 1
        assert max(tokens) >= INTERVAL
    assert (run.rows["first_event_tokens"] == 1).all()
    # Four tokens in a chunk every 40 ms are 10 ms a token; what is seen of gaps is 40 ms.
    server_tpot_ms = run.histogram(TPOT).mean * 1e3
    assert run.rows["tpot_ms"].mean() == pytest.approx(server_tpot_ms, abs=1.0)
    assert run.summary["itl_ms"]["mean"] > 2 * run.histogram(ITL).mean * 1e3


def test_tokens_of_each_event_are_missing_where_the_server_does_not_tell(
    server: Server, runs: Path, tmp_path: Path
) -> None:
    """Not told is None, never 0 or 1: nobody may take a bundle for a token."""
    run = bundled(server, runs, tmp_path, "skip_special_tokens: false")
    assert (run.rows["events"] <= 1 + 32 / INTERVAL).all()
    assert run.rows["first_event_tokens"].isna().all()
    assert all(len(tokens) == 0 for tokens in run.rows["event_tokens"])
