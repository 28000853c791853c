"""Rules about flags and requests against real vLLM: what a rule finds, vLLM refuses, or passes over."""

from __future__ import annotations

import http.client
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from kvswarm.guardrails.check import check_profile
from kvswarm.guardrails.facts import Server as KnownServer
from kvswarm.serving.versions import vllm_version

sys.path.insert(0, str(Path(__file__).parent))
from serving import MODEL, Server, refusals, serving

pytestmark = pytest.mark.vllm

VERSION = "0.32.0"
PARSED = ["--enable-auto-tool-choice", "--tool-call-parser"]
NGRAM = {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_min": 2}
# Rule, what a profile says, the same as vLLM's own flags, flags that are right, what vLLM says.
FLAGS: list[tuple[str, dict[str, Any], list[str], list[str], str]] = [
    ("KVS020", {"max_num_sequences": 64}, ["--max-num-sequences", "64"], ["--max-num-seqs", "64"], "the parser refuses it"),
    ("KVS021", {"quantization": "hqq"}, ["--quantization", "hqq"], [], "Unknown quantization method"),
    ("KVS021", {"kv_cache_dtype": "int3"}, ["--kv-cache-dtype", "int3"], ["--kv-cache-dtype", "fp8"], "the parser refuses it"),
    ("KVS023", {"swap_space": 4}, ["--swap-space", "4"], [], "the parser refuses it"),
    ("KVS023", {"num_scheduler_steps": 8}, ["--num-scheduler-steps", "8"], [], "the parser refuses it"),
    ("KVS032", {"use_v2_block_manager": True}, ["--use-v2-block-manager"], [], "the parser refuses it"),
    ("KVS032", {"device": "cpu"}, ["--device", "cpu"], [], "the parser refuses it"),
    ("KVS028", {"max_num_batched_tokens": 64, "max_num_seqs": 128}, ["--max-num-batched-tokens", "64", "--max-num-seqs", "128"], ["--max-num-batched-tokens", "2048", "--max-num-seqs", "128"], "max_num_batched_tokens"),
    ("KVS029", {"enable_chunked_prefill": False, "max_num_batched_tokens": 512, "max_model_len": 2048}, ["--no-enable-chunked-prefill", "--max-num-batched-tokens", "512"], ["--no-enable-chunked-prefill", "--max-num-batched-tokens", "2048"], "max_num_batched_tokens"),
    ("KVS042", {"structured_outputs_config": {"backend": "outline"}}, ["--structured-outputs-config", '{"backend": "outline"}'], ["--structured-outputs-config", '{"backend": "outlines"}'], "the parser refuses it"),
    ("KVS046", {"enable_auto_tool_choice": True}, ["--enable-auto-tool-choice"], [*PARSED, "hermes"], "requires --tool-call-parser"),
    ("KVS047", {"enable_auto_tool_choice": True, "tool_call_parser": "hermse"}, [*PARSED, "hermse"], [*PARSED, "hermes"], "invalid tool call parser"),
    ("KVS060", {"speculative": {**NGRAM, "prompt_lookup_max": 1}}, ["--speculative-config", json.dumps({**NGRAM, "prompt_lookup_max": 1})], ["--speculative-config", json.dumps({**NGRAM, "prompt_lookup_max": 3})], "prompt_lookup"),
]  # fmt: skip


@pytest.fixture(scope="module")
def said(vllm_python: str, model: Path) -> list[Any]:
    """What vLLM says to the wrong and to the right flags of each case, in one process."""
    length = ["--max-model-len", "2048"]
    questions = [
        [str(model), [*length, *flags]] for _, _, bad, good, _ in FLAGS for flags in (bad, good)
    ]
    return refusals(vllm_python, questions)


def broken(profile: dict[str, Any], folder: Path) -> set[str]:
    """The rules that kvswarm finds broken in a profile."""
    path = folder / "profile.yaml"
    path.write_text(yaml.safe_dump({"extends": "standard", **profile}))
    server = KnownServer(version=vllm_version(VERSION))
    return {finding.rule.id for finding in check_profile(str(path), None, server).findings}


@pytest.mark.parametrize(
    "at", range(len(FLAGS)), ids=[f"{case[0]}-{at}" for at, case in enumerate(FLAGS)]
)
def test_flags_that_a_rule_finds_are_refused(at: int, said: list[Any], tmp_path: Path) -> None:
    """A rule that vLLM contradicts is a bug in the rule."""
    rule, features, _, _, words = FLAGS[at]
    keys = {"speculative": features["speculative"]} if "speculative" in features else {}
    others = {key: value for key, value in features.items() if key != "speculative"}
    assert rule in broken({**keys, "vllm_features": others} if others else keys, tmp_path)
    assert said[2 * at] is not None
    assert words in said[2 * at]
    assert said[2 * at + 1] is None


@pytest.fixture(scope="module")
def server(vllm_python: str, model: Path) -> Iterator[Server]:
    """A server with ngram speculation, outlines, and neither a tool parser nor LoRA."""
    speculation = json.dumps({**NGRAM, "prompt_lookup_max": 3})
    with serving(
        vllm_python, model,
        "--speculative-config", speculation,
        "--structured-outputs-config", '{"backend": "outlines"}',
    ) as running:  # fmt: skip
        yield running


def ask(server: Server, **changes: Any) -> tuple[int, dict[str, Any]]:
    """Ask for a chat completion; status and answer."""
    messages = [{"role": "user", "content": "word " * 8}]
    body = {"model": MODEL, "messages": messages, "max_tokens": 8, **changes}
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    try:
        kind = {"Content-Type": "application/json"}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), kind)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
GRAMMAR = 'root ::= "a"'
SPECULATIVE = {"speculative": {**NGRAM, "prompt_lookup_max": 3}}
# Rule, what a profile says, the request that it makes, the status that vLLM answers it with.
REQUESTS: list[tuple[str, dict[str, Any], dict[str, Any], int]] = [
    ("KVS006", {"max_tokens": 4096, "vllm_features": {"max_model_len": 2048}}, {"max_tokens": 4096}, 400),
    ("KVS043", {"structured_output": {"constraints": [{"name": "n", "ask": "A.", "grammar": GRAMMAR}]}, "vllm_features": {"structured_outputs_config": {"backend": "outlines"}}}, {"structured_outputs": {"grammar": GRAMMAR}}, 400),
    ("KVS045", {"tools": [{**TOOL, "ask": "Add."}]}, {"tools": [TOOL], "tool_choice": "auto"}, 400),
    ("KVS045", {"tools": [{**TOOL, "ask": "Add."}], "tool_calling": {"choice": "required"}}, {"tools": [TOOL], "tool_choice": "required"}, 400),
    ("KVS065", {"request": {"min_p": 0.1}, **SPECULATIVE}, {"min_p": 0.1}, 400),
    ("KVS065", {"request": {"logit_bias": {"5": 1}}, **SPECULATIVE}, {"logit_bias": {"5": 1}}, 400),
    ("KVS071", {"adapters": {"base": 1, "sql": 1}}, {"model": "sql"}, 404),
]  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "profile", "changes", "status"),
    REQUESTS,
    ids=[f"{case[0]}-{at}" for at, case in enumerate(REQUESTS)],
)
def test_requests_that_a_rule_finds_are_refused(  # noqa: PLR0913, PLR0917 - a table's row
    server: Server,
    rule: str,
    profile: dict[str, Any],
    changes: dict[str, Any],
    status: int,
    tmp_path: Path,
) -> None:
    """And the same request without them is answered."""
    assert rule in broken(profile, tmp_path)
    assert ask(server, **changes)[0] == status
    assert ask(server)[0] == 200


def test_legacy_fields_are_passed_over_in_silence(server: Server, tmp_path: Path) -> None:
    """Which no status tells: an answer of eight tokens of random weights is none of the choices."""
    field = {"guided_choice": ["yes", "no"]}
    assert "KVS040" in broken({"request": field}, tmp_path)
    status, answer = ask(server, ignore_eos=True, **field)
    assert status == 200
    assert answer["choices"][0]["message"]["content"] not in {"yes", "no"}
    constrained = ask(server, structured_outputs={"choice": ["yes", "no"]})
    assert constrained[0] == 200
    assert constrained[1]["choices"][0]["message"]["content"] in {"yes", "no"}
