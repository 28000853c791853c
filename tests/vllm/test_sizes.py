"""Rules about sizes and quantization, and the estimate, against real vLLM."""

from __future__ import annotations

import http.client
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from kvswarm.guardrails.check import check_profile
from kvswarm.guardrails.facts import Server as KnownServer
from kvswarm.profiles.overrides import Overrides
from kvswarm.serving.architecture import architecture_of
from kvswarm.serving.flags import vllm_flags
from kvswarm.serving.memory import Spread, kv_cache
from kvswarm.serving.versions import vllm_version

sys.path.insert(0, str(Path(__file__).parent))
from serving import refusals, serving

pytestmark = pytest.mark.vllm

VERSION = "0.32.0"
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}
# Rule, features that break it, features that do not, what the checkpoint is quantized by, and what
# vLLM says.
CASES: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any] | None, str]] = [
    ("KVS105", {"max_model_len": 4096}, {"max_model_len": 2048}, None, "greater than the derived"),
    ("KVS110", {"tensor_parallel_size": 3}, {"tensor_parallel_size": 1}, None, "divisible by tensor"),
    ("KVS120", {"quantization": "awq"}, {}, None, "Cannot find the config file for"),
    ("KVS120", {"quantization": "gptq"}, {"quantization": "fp8_per_tensor"}, None, "Cannot find"),
    ("KVS124", {"quantization": "bitsandbytes"}, {}, None, "Unknown quantization method"),
    ("KVS121", {"quantization": "gptq"}, {}, AWQ, "does not match the quantization"),
]  # fmt: skip


@pytest.fixture(scope="module")
def answers(vllm_python: str, model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What vLLM says to the bad and to the good features of each case, in one process."""
    questions = []
    for rule, bad, good, quantization, _ in CASES:
        directory = model_with(model, tmp_path_factory.mktemp(rule), quantization)
        for features in (bad, good):
            flags = vllm_flags(features, VERSION).arguments
            questions.append([str(directory), list(flags)])
    return refusals(vllm_python, questions)


def model_with(model: Path, directory: Path, quantization: dict[str, Any] | None) -> Path:
    """Copy the tiny model, quantized as its config.json then says."""
    for file in model.iterdir():
        if file.is_file():
            (directory / file.name).write_bytes(file.read_bytes())
    if quantization is not None:
        config = json.loads((directory / "config.json").read_text())
        config |= {"quantization_config": quantization, "torch_dtype": "float16"}
        (directory / "config.json").write_text(json.dumps(config))
    return directory


def broken(model: Path, features: dict[str, Any], quantization: dict[str, Any] | None) -> set[str]:
    """The rules that kvswarm finds broken."""
    config = json.loads((model / "config.json").read_text())
    if quantization is not None:
        config |= {"quantization_config": quantization}
    settings = tuple(f"vllm_features.{key}={value}" for key, value in features.items())
    server = KnownServer(version=vllm_version(VERSION), config=config)
    checked = check_profile("standard", Overrides(settings=settings), server)
    return {finding.rule.id for finding in checked.findings}


@pytest.mark.parametrize(
    "at", range(len(CASES)), ids=[f"{case[0]}-{at}" for at, case in enumerate(CASES)]
)
def test_vllm_refuses_what_the_rule_finds_and_takes_what_it_does_not(
    at: int, answers: list[Any], model: Path
) -> None:
    """A rule that vLLM contradicts is a bug in the rule."""
    rule, bad, good, quantization, words = CASES[at]
    assert broken(model, bad, quantization) == {rule}
    assert words in answers[2 * at]
    assert rule not in broken(model, good, quantization)
    assert answers[2 * at + 1] is None


def test_the_kv_cache_per_token_is_the_servers_own(vllm_python: str, model: Path) -> None:
    """vllm:cache_config_info tells bytes and tokens of the whole cache."""
    config = json.loads((model / "config.json").read_text())
    with serving(vllm_python, model) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
    (size,) = re.findall(r'cache_config_info\{[^}]*kv_cache_memory_bytes="(\d+)"', text)
    (tokens,) = re.findall(r'cache_config_info\{[^}]*kv_cache_size_tokens="(\d+)"', text)
    # The tiny model is in float32, which vLLM loads, and keeps, in 16 bits.
    cache = kv_cache(architecture_of(config), Spread())
    assert cache is not None
    assert int(size) / int(tokens) == pytest.approx(cache.bytes_per_token, rel=0.01)
