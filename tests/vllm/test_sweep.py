"""`--serve` and `--sweep` with real vLLM: how many tokens to draft, each with a server of its own."""

from __future__ import annotations

import json
import logging
import shlex
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from measuring import RUN_S
from serving import serve_command, server_cores, server_environment

logger = logging.getLogger("kvswarm.vllm")

pytestmark = pytest.mark.vllm

TOKENS = (1, 4)
GATE_MISSED, INVALID = 1, 3


def left(model: Path) -> list[psutil.Process]:
    """Processes that serve the model."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if str(model) in (process.info["cmdline"] or [])
    ]


def test_the_number_of_drafted_tokens_is_swept_over_servers_that_are_started_for_it(
    vllm_python: str, model: Path, tmp_path: Path
) -> None:
    """More drafted tokens make longer events and are accepted less often; no server is left."""
    profile = tmp_path / "drafting.yaml"
    profile.write_text(
        "extends: speculative-decoding\nslo: null\nrequests: 24\nwarmup: {requests: 4}\nconcurrency: 2\n"
        "input_tokens: 64\nmax_tokens: 64\nrequest: {return_token_ids: true}\n"
        f"tokenizer: {model}\n"
    )
    cores = ",".join(map(str, server_cores()))
    command = ["taskset", "--cpu-list", cores, *serve_command(vllm_python, model)]
    sweep = f"speculative.num_speculative_tokens={','.join(map(str, TOKENS))}"
    ended = subprocess.run(
        [sys.executable, "-m", "kvswarm", "run", "--profile", profile, "--serve",
         shlex.join(command), "--sweep", sweep, "--out", tmp_path / "sweep"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        timeout=RUN_S * len(TOKENS), env=server_environment(),
    )  # fmt: skip
    logger.info("%s", ended.stdout)
    assert ended.returncode in {0, GATE_MISSED, INVALID}, ended.stdout
    assert left(model) == []
    entries = json.loads((tmp_path / "sweep" / "sweep.json").read_text())["values"]
    for tokens, entry in zip(TOKENS, entries, strict=True):
        assert entry["status"] == "done"
        assert entry["figures"]["requests_ok"] == 20
        summary = json.loads((tmp_path / "sweep" / str(tokens) / "summary.json").read_text())
        told = summary["server"]["speculation"]
        assert len(told["acceptance_by_position"]) == tokens
        assert told["draft_tokens"] <= tokens * told["drafts"]
        assert 1 <= entry["figures"]["mean_acceptance_length"] <= 1 + tokens
        assert (
            f'"num_speculative_tokens":{tokens}'
            in (tmp_path / "sweep" / str(tokens) / "server.log").read_text().partition("\n")[0]
        )
    one, four = entries
    assert four["figures"]["tokens_per_event"] > one["figures"]["tokens_per_event"] > 1
    assert {effect["figure"] for effect in four["effects"]} >= {"tpot_ms", "tokens_per_event"}
