"""Claims against a real server, started with the flags that a profile's vllm_features resolve to."""

from __future__ import annotations

import http.client
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from kvswarm.serving.claims import ServerEvidence, check_claims, kv_cache_capacity
from kvswarm.serving.flags import vllm_flags

sys.path.insert(0, str(Path(__file__).parent))
from serving import Server, serving

pytestmark = pytest.mark.vllm

VERSION = "0.32.0"
FEATURES: dict[str, Any] = {
    "max_model_len": 1024,
    "max_num_seqs": 4,
    "gpu_memory_utilization": 0.8,
    "enable_prefix_caching": False,
    "block_size": 32,
    "speculative": {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 3},
    "guided_decoding_backend": "xgrammar",
    "enable_auto_tool_choice": True,
    "tool_call_parser": "hermes",
    "use_v2_block_manager": True,
}


@pytest.fixture(scope="module")
def server(vllm_python: str, model: Path) -> Iterator[Server]:
    """A server that was asked for FEATURES."""
    flags = vllm_flags(FEATURES, VERSION)
    with serving(vllm_python, model, *flags.arguments) as running:
        yield running


def ask(server: Server, path: str) -> str:
    """GET a page."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


@pytest.fixture(scope="module")
def evidence(server: Server) -> ServerEvidence:
    """What the server shows of itself."""
    cards = json.loads(ask(server, "/v1/models"))["data"]
    samples = [
        sample
        for family in text_string_to_metric_families(ask(server, "/metrics"))
        for sample in family.samples
    ]
    (cache,) = [sample for sample in samples if sample.name == "vllm:cache_config_info"]
    return ServerEvidence(
        model_card=cards[0],
        models=tuple(card["id"] for card in cards),
        cache_config=cache.labels,
        metric_names=frozenset(sample.name for sample in samples),
        server_version=json.loads(ask(server, "/version"))["version"],
    )


def test_what_was_asked_for_is_confirmed(evidence: ServerEvidence) -> None:
    """By what a real server shows, and without knowing its flags."""
    claims = {claim.key: claim for claim in check_claims(FEATURES, evidence)}
    assert set(claims) == {
        "max_model_len",
        "gpu_memory_utilization",
        "enable_prefix_caching",
        "block_size",
        "speculative",
    }
    assert {claim.status for claim in claims.values()} == {"confirmed"}, claims


def test_what_was_not_asked_for_is_contradicted(evidence: ServerEvidence) -> None:
    """Each claim the other way round."""
    other = {
        "max_model_len": 2048,
        "gpu_memory_utilization": 0.9,
        "enable_prefix_caching": True,
        "block_size": 16,
        "kv_cache_dtype": "fp8",
        "enable_lora": True,
        "lora_modules": {"french": "/adapters/french"},
    }
    claims = check_claims(other, evidence)
    assert [claim.key for claim in claims] == list(other)
    assert {claim.status for claim in claims} == {"contradicted"}, claims


def test_the_capacity_is_what_vllm_says_it_is(evidence: ServerEvidence) -> None:
    """vLLM shows tokens and concurrency too: an answer to compare with."""
    capacity = kv_cache_capacity(evidence.cache_config, 1024)
    assert capacity.tokens == int(evidence.cache_config["kv_cache_size_tokens"])
    told = float(evidence.cache_config["kv_cache_max_concurrency"])
    assert capacity.max_concurrency == pytest.approx(told, rel=0.01)
